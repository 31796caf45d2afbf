"""How findings are printed: a line each, the fix below it."""

import sys
from collections import Counter
from collections.abc import Sequence

from dysl_vla_ros.doctor.finding import Finding, Level

COLOURS = {Level.OK: "32", Level.WARN: "33", Level.FAIL: "31;1"}


def lines(findings: Sequence[Finding], colour: bool = False) -> list[str]:
    """Return the report's lines, with the escape codes of a terminal where ``colour`` says so."""
    width = max((len(finding.subject) for finding in findings), default=0)
    result = []
    for finding in findings:
        level = f"{finding.level.name:4}"
        shown = f"\x1b[{COLOURS[finding.level]}m{level}\x1b[0m" if colour else level
        result.append(f"{shown}  {finding.subject:{width}}  {finding.text}")
        if finding.fix:
            result.append(f"{'':4}  {'':{width}}  fix: {finding.fix}")
    counts = Counter(finding.level for finding in findings)
    result.append(", ".join(f"{counts[level]} {level.name}" for level in Level))
    return result


def show(findings: Sequence[Finding]) -> int:
    """Print the report; return 1 where something is FAIL, else 0."""
    print("\n".join(lines(findings, colour=sys.stdout.isatty())), flush=True)
    return int(any(finding.level is Level.FAIL for finding in findings))
