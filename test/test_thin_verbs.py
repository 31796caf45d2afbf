"""What a command line said is read in a verb's own three functions and nowhere else."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import dysl_vla_ros

PACKAGE = Path(dysl_vla_ros.__file__).parent
OWN = {"add_arguments", "check", "run"}  # of a verb: module-level functions in commands/


def takers(tree: ast.AST, where: str = "") -> Iterator[str]:
    """Yield the dotted names of the functions of a module that take an argparse.Namespace."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            own = node.args
            given = [*own.posonlyargs, *own.args, *own.kwonlyargs, *filter(None, (own.vararg, own.kwarg))]
            if any(one.annotation and re.search(r"\bNamespace\b", ast.unparse(one.annotation)) for one in given):
                yield where + node.name
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield from takers(node, f"{where}{node.name}.")


def test_no_helper_takes_an_argparse_namespace() -> None:
    offenders, verbs = set(), set()
    for path in PACKAGE.rglob("*.py"):
        of_a_verb = path.parent.name == "commands"
        for name in takers(ast.parse(path.read_text(encoding="utf-8"))):
            if of_a_verb and name in OWN:
                verbs.add(path.stem)
            else:
                offenders.add(f"{path.stem}.{name}")
    assert {"evaluate", "replay", "floors", "train"} <= verbs, "no verb was found: nothing is tested"
    assert not offenders, "a verb's run() makes a dataclass of settings of it, or plain values"


def test_the_rule_itself_finds_one() -> None:
    source = "class A:\n def helper(self, *, a: 'argparse.Namespace | None'): ...\ndef other(a: SimpleNamespace): ..."
    assert list(takers(ast.parse(source))) == ["A.helper"]
    assert not list(takers(ast.parse(source.replace("argparse.Namespace", "Values"))))
