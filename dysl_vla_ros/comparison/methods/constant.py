"""``constant``, ``constant_by_set``, ``constant_by_instruction``: the smallest floors that lose nothing.

As a rule of thumb, a list of sets or a table of instructions would name them: chosen among what ``dysl_vla floors``
trained alike and played in calibration scenes. Where none is within, every layer runs.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from dysl_vla_ros.comparison.constant_floors import CHOICES, FULL_DEPTH, read_floors
from dysl_vla_ros.comparison.methods.method import CalibrationScenes, Method, MethodInputs, Prepared, Trained
from dysl_vla_ros.comparison.methods.static import at_floor


def _set_up(name: str, scenes: CalibrationScenes) -> Mapping[str, Any]:
    values = read_floors(Path(scenes.options.floors))
    return {name: CHOICES[name](values, scenes.comparison.evaluation.tasks)}


def _prepare(name: str, given: MethodInputs) -> Prepared:
    chosen: Mapping[str, str] = given.values[name]
    counts = {floor: _floor(given, floor).trained for floor in dict.fromkeys(chosen.values())}
    own = _floor(given, chosen[given.task] if given.task else next(iter(counts)))
    known = [each for each in counts.values() if each.steps is not None and each.seconds is not None]
    return replace(
        own,
        trained=Trained(
            sum(each.parameters for each in counts.values()),
            sum(each.steps or 0 for each in known) if len(known) == len(counts) else None,
            sum(each.seconds or 0.0 for each in known) if len(known) == len(counts) else None,
        ),
    )


def _floor(given: MethodInputs, floor: str) -> Prepared:
    if floor == FULL_DEPTH:
        full = replace(given.settings, skipping=replace(given.settings.skipping, rule="full"))
        return Prepared(given.alone(given.options.checkpoint), full, Trained(0, 0, 0.0))
    return at_floor(given, str(Path(given.options.floors) / floor))


CONSTANT, CONSTANT_BY_SET, CONSTANT_BY_INSTRUCTION = (
    Method(
        f"the smallest floor that loses nothing, {where}",
        partial(_prepare, name),
        adapters=False,
        floors=True,
        set_up=partial(_set_up, name),
        sets=(name,),
        by_task=True,
    )
    for name, where in zip(CHOICES, ("one for all sets", "one for each set", "one for each instruction"), strict=True)
)
