"""``dysl_paper``: guidance as the paper has it, its thresholds searched on calibration scenes as fairly as ours."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from dysl_vla_ros.calibration.paper_guidance import paper_guidance
from dysl_vla_ros.comparison.methods.method import (
    CalibrationScenes,
    Method,
    MethodInputs,
    MethodOptions,
    Prepared,
    trained,
)
from dysl_vla_ros.settings import GuidanceSettings, SkippingSettings

GUIDANCE = "paper_guidance"


def _folder(options: MethodOptions) -> str:
    return options.paper_adapters or options.adapters


def _set_up(scenes: CalibrationScenes) -> Mapping[str, Any]:
    """Search guidance for the paper's stride; None: the folder's own, because it was calibrated for that."""
    runtime, dysl = scenes.loaded(_folder(scenes.options))
    calibrated = dysl.calibrated
    if calibrated.get("stride") == "paper" and calibrated.get("verify_on") == "first":
        return {GUIDANCE: None}
    runs = scenes.runs_of_all()
    return {GUIDANCE: asdict(paper_guidance(runtime, runs, scenes.m)) if runs else None}


def _prepare(given: MethodInputs) -> Prepared:
    runtime, dysl = given.loaded(_folder(given.options))
    found = given.values.get(GUIDANCE)
    guidance = GuidanceSettings(**found) if found else given.settings.guidance
    guidance = replace(guidance, stride="paper", verify_on="first", prior=True, verify=True)
    paper = replace(given.settings, skipping=SkippingSettings(), guidance=guidance)
    return Prepared(runtime, paper, trained(dysl, controllers=True))


METHOD = Method(
    "the paper's stride, and verification of first drops alone",
    _prepare,
    folder=_folder,
    set_up=_set_up,
    sets=(GUIDANCE,),
    guided=True,
)
