"""Every setting, declared once: default, unit, range, meaning. ROS parameters and their documentation come from here.

One frozen dataclass a group; the group's name is the parameter's prefix (``guidance.window``). ``model`` settings are
fixed while the node is configured, all others act on the next step. A threshold of 0.0 (a choice of "") stands for
"as calibrated": the DySL folder's own value is used, and shown in ``/diagnostics``.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from dysl_vla_ros.errors import SettingError


def setting(
    default: Any,
    meaning: str,
    *,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    form: tuple[str, str] = ("", ""),
) -> Any:
    """Declare one field: its default and what a user must know of it. Numbers need ``low`` and ``high``, finite.

    ``form`` is of a text that has no fixed choices: a pattern, and the same in words.
    """
    told = {"meaning": meaning, "unit": unit, "low": low, "high": high, "choices": choices, "form": form}
    return dataclasses.field(default=default, metadata=told)


@dataclass(frozen=True)
class ModelSettings:
    """What is loaded, and where it runs. Read when the node is configured."""

    group: ClassVar[str] = "model"
    checkpoint: str = setting("", "folder of the base checkpoint (config.json, *.safetensors)")
    adapters: str = setting("", "DySL folder; empty: the checkpoint's own `dysl` folder, full depth if it has none")
    device: str = setting("cpu", "where the policy runs", form=(r"cpu|cuda(:\d{1,3})?", "cpu, cuda or cuda:N"))
    runtime: str = setting(
        "torch",
        "what computes the policy; onnx: ONNX Runtime, from what `dysl_vla export` wrote, in a worker without torch",
        choices=("torch", "onnx"),
    )
    export: str = setting(
        "",
        "of ONNX Runtime: folder that `dysl_vla export --output` wrote; empty: `onnx` in the DySL folder that "
        "model.adapters names, else in the checkpoint",
    )
    dtype: str = setting(
        "",
        "numbers that the policy computes in; empty: the checkpoint's own",
        choices=("", "float32", "bfloat16", "float16"),
    )
    tokenizer: str = setting(
        "", "folder of what the checkpoint names on a hub: tokenizer, of SmolVLA its VLM's config.json as well"
    )
    sha256: str = setting(
        "",
        "SHA-256 that the base weights must have; empty: any",
        form=(r"([0-9a-f]{64})?", "64 hexadecimal digits, or empty"),
    )
    flow_steps: int = setting(0, "flow steps of a policy that draws noise; 0: as the checkpoint says", low=0, high=1000)
    horizon: int = setting(
        0,
        "actions of a chunk, where no file of the checkpoint says it (OpenVLA-OFT: what it was trained with)",
        low=0,
        high=4096,
    )
    bounds: str = setting(
        "",
        "which statistics became -1 and 1 in training, where no file says it: q99 (1st and 99th percentile) or min_max",
        choices=("", "q99", "min_max"),
    )
    statistics_key: str = setting(
        "", "the data set whose statistics hold, where a checkpoint has those of several; empty: the only one"
    )
    image_transport: str = setting(
        "raw",
        "what the cameras' topics carry; compressed: JPEG or PNG on `<topic>/compressed`",
        choices=("raw", "compressed"),
    )
    noise: str = setting(
        "fresh",
        "of a policy that draws noise (flow matching): fresh for each inference, or fixed within an episode",
        choices=("fresh", "fixed"),
    )
    noise_seed: int = setting(0, "what that noise is drawn from, with the episode's number", low=0, high=999_999)
    threads: int = setting(0, "compute threads of the policy worker; 0: half the cores", low=0, high=256)
    python: str = setting("", "Python interpreter of the policy worker; empty: the node's own")
    load_timeout: float = setting(
        0.0,
        "longest time for starting, loading and warming up; 0: 60 s, and 300 s of another project's checkpoint",
        unit="s",
        low=0.0,
        high=3600.0,
    )
    step_timeout: float = setting(
        2.0, "an inference that takes longer counts as a hung worker", unit="s", low=0.05, high=600.0
    )


@dataclass(frozen=True)
class ControlSettings:
    """How chunks are played."""

    group: ClassVar[str] = "control"
    rate: float = setting(
        20.0, "commands a second; a whole multiple of the policy's own action rate", unit="Hz", low=1.0, high=1000.0
    )
    actions_per_inference: int = setting(
        1,
        "actions of a chunk played before the next inference (m); 0: automatic, more while the motion is continuous, "
        "one near a predicted drop",
        low=0,
        high=64,
    )
    budget_ms: float = setting(
        0.0,
        "time that an inference may take in the policy worker; layers and verifications that do not fit are left out; "
        "0: any",
        unit="ms",
        low=0.0,
        high=10_000.0,
    )
    action_scale: float = setting(
        1.0, "factor on translation and rotation, for first trials on a robot", low=0.0, high=1.0
    )
    ramp_in: float = setting(
        0.0, "time over which commands grow to full size after a start or a stop", unit="s", low=0.0, high=10.0
    )
    max_linear_seam: float = setting(
        0.1,
        "largest jump of the speed where a new chunk, or motion after standing still, begins; the rest of the "
        "difference is worked off by as much a tick; 0: no bound",
        unit="m/s",
        low=0.0,
        high=5.0,
    )
    max_angular_seam: float = setting(
        0.4, "the same of the turning speed; 0: no bound", unit="rad/s", low=0.0, high=20.0
    )
    command_frame: str = setting("", "frame_id of the commands; empty: the policy's own frame")
    instruction: str = setting(
        "", "instruction in force from activation until another is heard; empty: wait for the topic `instruction`"
    )


@dataclass(frozen=True)
class SkippingSettings:
    """When layers are skipped."""

    group: ClassVar[str] = "skipping"
    rule: str = setting(
        "",
        "which layers run; full: every one, bit-identical to the base model; static: the static ones alone, always; "
        "dysl: as controllers and guidance decide; empty: as the DySL folder says",
        choices=("", "dysl", "static", "full"),
    )
    enabled: bool = setting(True, "the old name of a rule, for one release: false is skipping.rule: full")
    threshold: float = setting(
        0.5, "a layer's controller must exceed it to skip; higher: fewer layers skipped", low=0.0, high=1.0
    )

    def named_rule(self, own: str = "dysl") -> str:
        """Return the rule in force; ``own``: that of the DySL folder."""
        return (self.rule or own) if self.enabled else "full"


WARMUP = 2  # inferences, where no calibration says otherwise: the first from which a change of continuity is known


@dataclass(frozen=True)
class GuidanceSettings:
    """Prior-post skipping guidance by the continuity of the trajectory."""

    group: ClassVar[str] = "guidance"
    window: int = setting(
        5, "differences between actions that continuity averages, times m (the paper's k)", low=1, high=100
    )
    step: float = setting(
        0.0, "change of continuity that moves an allow point by one layer (eta); 0: as calibrated", low=0.0, high=100.0
    )
    verify_threshold: float = setting(
        0.0, "fall of continuity that is verified at full depth (eta1); 0: as calibrated", low=0.0, high=100.0
    )
    dead_band: float = setting(
        0.0, "smaller changes of continuity move nothing; 0: as calibrated, negative: none", low=-1.0, high=100.0
    )
    stride: str = setting("", "how far an allow point moves; empty: as calibrated", choices=("", "paper", "integral"))
    rotation_weight: float = setting(1.0, "weight of rotation in continuity", low=0.0, high=100.0)
    gripper_weight: float = setting(1.0, "weight of the gripper in continuity", low=0.0, high=100.0)
    warmup: int = setting(-1, "inferences at full depth after a reset; -1: as calibrated, else 2", low=-1, high=1000)
    verify_on: str = setting("", "which falls are verified; empty: as calibrated", choices=("", "first", "any"))
    verify_every: int = setting(
        0,
        "verify an action when this many inferences went by unverified, continuity aside; 0: never",
        low=0,
        high=10000,
    )
    verify_while: float = setting(
        0.0,
        "verify again while the last verified action lay further than this from the skipped one (mean absolute "
        "difference, normalised); 0: never",
        low=0.0,
        high=100.0,
    )
    prior: bool = setting(True, "move allow points by continuity before an inference")
    verify: bool = setting(True, "verify actions at full depth after an inference; false: none")

    def resolved(self, calibrated: Mapping[str, float | str]) -> "GuidanceSettings":
        """Return these settings with every "as calibrated" value put in from a DySL folder's calibration.

        What stands for it is the default of each value that is calibrated. A warm-up is always put in: :data:`WARMUP`
        where nothing was calibrated.
        """
        known = {"warmup": WARMUP, **calibrated}
        changes = {
            field.name: type(own)(known[field.name])  # numbers come as floats
            for field in dataclasses.fields(self)
            if field.name in known and (own := getattr(self, field.name)) == field.default
        }
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True)
class SafetySettings:
    """What stops the arm, and the limits of every command. Not a safety-rated function."""

    group: ClassVar[str] = "safety"
    max_arrival_age: float = setting(
        0.3, "longest time since the newest message of any input, steady clock", unit="s", low=0.02, high=10.0
    )
    max_stamp_age: float = setting(
        0.5,
        "longest time from an image's stamp to the moment its action is played, ROS clock",
        unit="s",
        low=0.02,
        high=60.0,
    )
    max_clock_skew: float = setting(
        0.05, "a stamp further ahead of the ROS clock is refused", unit="s", low=0.0, high=10.0
    )
    max_camera_skew: float = setting(
        0.1,
        "largest difference between the stamps of the first camera's image and another one's that is shown with it, "
        "and longest wait for that one to arrive",
        unit="s",
        low=0.001,
        high=10.0,
    )
    max_consecutive_failures: int = setting(3, "failed inferences in a row that end in unconfigured", low=1, high=1000)
    auto_resume: bool = setting(True, "go on by itself when the cause of a stop is gone; false: hold until ~/reset")
    max_linear_speed: float = setting(0.25, "speed limit of the end effector", unit="m/s", low=0.001, high=5.0)
    max_angular_speed: float = setting(
        1.0, "turning speed limit of the end effector", unit="rad/s", low=0.001, high=20.0
    )
    max_linear_acceleration: float = setting(
        5.0, "acceleration limit of the end effector", unit="m/s^2", low=0.01, high=1000.0
    )
    max_angular_acceleration: float = setting(
        20.0, "turning acceleration limit", unit="rad/s^2", low=0.01, high=10000.0
    )
    max_gripper_speed: float = setting(
        20.0, "change of the gripper's opening (0..1) a second", unit="1/s", low=0.01, high=1000.0
    )
    workspace_box: bool = setting(
        False, "keep the end effector's position inside the box below; the policy must declare that position"
    )
    workspace_min_x: float = setting(-10.0, "wall of the box, frame of the actions", unit="m", low=-10.0, high=10.0)
    workspace_max_x: float = setting(10.0, "opposite wall", unit="m", low=-10.0, high=10.0)
    workspace_min_y: float = setting(-10.0, "wall of the box", unit="m", low=-10.0, high=10.0)
    workspace_max_y: float = setting(10.0, "opposite wall", unit="m", low=-10.0, high=10.0)
    workspace_min_z: float = setting(-10.0, "wall of the box, such as the table", unit="m", low=-10.0, high=10.0)
    workspace_max_z: float = setting(10.0, "opposite wall", unit="m", low=-10.0, high=10.0)


@dataclass(frozen=True)
class DiagnosticsSettings:
    """What is reported, and how often."""

    group: ClassVar[str] = "diagnostics"
    period: float = setting(1.0, "time between two messages on /diagnostics", unit="s", low=0.05, high=60.0)
    while_inactive: bool = setting(
        True, "repeat it outside active too; false: there one message for each change of state or cause, then silence"
    )
    window: int = setting(100, "inferences that p50, p95 and max are taken over", low=1, high=10000)


AUTOMATIC = 0  # of actions_per_inference: each inference says how many actions of its chunk are to be played


def actions_judged(actions_per_inference: int) -> int:
    """Return how many actions of a chunk guidance and calibration judge it by: m, and 1 where m is automatic."""
    return 1 if actions_per_inference == AUTOMATIC else actions_per_inference


@dataclass(frozen=True)
class RuntimeSettings:
    """The snapshot that goes with one inference."""

    skipping: SkippingSettings = SkippingSettings()
    guidance: GuidanceSettings = GuidanceSettings()
    actions_per_inference: int = 1  # 0: automatic
    budget_ms: float = 0.0  # of the node alone: no replay's or evaluation's result hangs on this machine's load


OPEN = GuidanceSettings(prior=False, verify=False, warmup=0)  # allow points at blocks' first layers, from the start
FULL_DEPTH = RuntimeSettings(SkippingSettings(rule="full"))
AT_FLOOR = RuntimeSettings(SkippingSettings(threshold=0.0), OPEN)  # every block skipped whole, always

GROUPS = (ModelSettings, ControlSettings, SkippingSettings, GuidanceSettings, SafetySettings, DiagnosticsSettings)


RENAMED = {"skipping.enabled": (False, "skipping.rule: full")}  # name -> value that says something, what says it now


def old_names(given: Mapping[str, Any]) -> list[str]:
    """Say of each setting in ``given`` (name -> value) that is called otherwise now how it is to be written."""
    return [
        f"{name} is an old name, which the next release will not take; write {now} instead"
        for name, (value, now) in RENAMED.items()
        if name in given and given[name] == value
    ]


def check(name: str, value: Any, field: "dataclasses.Field[Any]") -> str:
    """Return why ``value`` cannot be that setting, or "" if it can: type, finiteness, range, choices."""
    kind = type(field.default)
    wanted = {"int": "an integer", "float": "a number (write 1.0, not 1)", "str": "a text", "bool": "true or false"}
    if type(value) is not kind:
        return f"{name} must be {wanted[kind.__name__]}, not {value!r}"
    unit = f" {field.metadata['unit']}" if field.metadata["unit"] else ""
    if isinstance(value, int | float) and kind is not bool:
        low, high = field.metadata["low"], field.metadata["high"]
        if not math.isfinite(value) or not low <= value <= high:
            return f"{name} must be from {low:g} to {high:g}{unit}, not {value}"
    pattern, words = field.metadata["form"]
    if pattern and not re.fullmatch(pattern, value):
        return f"{name} must be {words}, not {value!r}"
    choices = field.metadata["choices"]
    if choices and value not in choices:
        return f"{name} must be one of {', '.join(repr(choice) for choice in choices)}, not {value!r}"
    return ""


def build(group: type[Any], values: Mapping[str, Any]) -> Any:
    """Make a settings group from plain values (YAML, msgpack); every wrong one is named in a single error.

    Raises:
        SettingError: unknown names, wrong types, values out of range.
    """
    fields = {field.name: field for field in dataclasses.fields(group)}
    faults = [
        f"{group.group}.{name} is unknown; there are {', '.join(fields)}" for name in values if name not in fields
    ]
    faults += [
        fault
        for name, value in values.items()
        if name in fields and (fault := check(f"{group.group}.{name}", value, fields[name]))
    ]
    if faults:
        raise SettingError("; ".join(faults))
    return group(**values)
