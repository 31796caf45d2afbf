"""Which topic of a bag serves which input of the policy: as told, by its name, else by being the only one of its type.

What was found is shown to the user, with how. Where nothing can be found, the error lists the topics of that type and
says which of them looks right; nothing is guessed in silence. A text is never taken for an instruction by its type
alone.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dysl_vla_ros.errors import BagError
from dysl_vla_ros.interfaces import GRIPPER_OPENING, PolicyDescription
from dysl_vla_ros.poses import is_unused
from dysl_vla_ros.readings import ENCODINGS

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
TYPES = {
    "ee_pose": ("geometry_msgs/msg/PoseStamped",),
    "gripper_state": ("std_msgs/msg/Float64",),
    "joint_states": ("sensor_msgs/msg/JointState",),
    "instruction": ("std_msgs/msg/String",),
}
CAMERA_TYPES = (IMAGE, COMPRESSED)
TWIST = "geometry_msgs/msg/TwistStamped"
OWN = {  # what the node itself and the simulator publish -> what we call it
    "dysl_vla_ros/msg/SkipReport": "skip_report",
    "dysl_vla_ros/msg/ActionChunk": "action_chunk",
    "dysl_vla_ros/msg/EndEffectorAction": "action",
    "dysl_vla_ros/msg/JointActionChunk": "joint_action_chunk",
    "dysl_vla_ros/msg/JointAction": "joint_action",
    "dysl_vla_ros/msg/PoseActionChunk": "pose_action_chunk",
    "dysl_vla_ros/msg/PoseAction": "pose_action",
    "dysl_vla_ros/msg/SceneState": "scene_state",
}


@dataclass(frozen=True)
class Served:
    """One topic and what it serves."""

    role: str
    topic: str
    type: str
    count: int
    how: str  # "as told", "by its name", "the only one of its type"
    rate: float = 0.0  # Hz, by the median of the gaps; 0: not known


@dataclass(frozen=True)
class BagTopics:
    """What a bag has for a policy."""

    inputs: Mapping[str, Served]  # cameras, proprioception, instruction (absent where the user gave it)
    outputs: Mapping[str, Served]  # what was commanded and reported when it was recorded: twist, gripper, OWN's values

    def role_of(self) -> dict[str, str]:
        """Return which role each input topic has."""
        return {served.topic: role for role, served in self.inputs.items()}


def remaps(arguments: Iterable[str]) -> dict[str, str]:
    """Read ``image:=/camera/color/image_raw`` and the like.

    Raises:
        BagError: another form.
    """
    found = {}
    for argument in arguments:
        role, sign, topic = argument.partition(":=")
        if not sign or not role or not topic:
            raise BagError(f"--topic {argument!r} must have the form image:=/camera/color/image_raw")
        found[role.removeprefix("~").strip("/")] = topic
    return found


def proprioception_roles(names: Iterable[str]) -> dict[str, list[str]]:
    """Return the inputs that carry these values of proprioception, and which of them each carries."""
    roles: dict[str, list[str]] = {}
    for name in names:
        if is_unused(name):
            continue
        role = "ee_pose" if name.startswith("ee.") else "gripper_state" if name == GRIPPER_OPENING else "joint_states"
        roles.setdefault(role, []).append(name)
    return roles


def find_topics(
    topics: Mapping[str, Any],
    description: PolicyDescription,
    remapped: Mapping[str, str],
    *,
    instruction: str = "",
    first_message: Callable[[str], Any] = lambda topic: None,
) -> BagTopics:
    """Find the topics that serve a policy.

    Args:
        topics: of the bag: name -> something with ``type``, ``count`` and ``rate`` (Hz).
        description: the policy's cameras and proprioception.
        remapped: role -> topic, as told (:func:`remaps`).
        instruction: given by the user; none is looked for then.
        first_message: gives a topic's first message, for resolutions in messages; None where it has none.

    Raises:
        BagError: something is missing; everything that is, with what there is of that type and what to do.
    """
    roles: dict[str, tuple[str, ...]] = {camera: CAMERA_TYPES for camera in description.cameras}
    roles |= {role: TYPES[role] for role in proprioception_roles(description.proprioception.names)}
    if not instruction:
        roles["instruction"] = TYPES["instruction"]
    search = _Search(topics, remapped, first_message)
    search.refuse_unknown_roles((*roles, "instruction", "twist", "gripper"))
    outputs = search.outputs()
    found = {role: served for role, types in roles.items() if (served := search.told_or_named(role, types))}
    for role, types in roles.items():  # what a name has claimed is no candidate any more
        if role not in found and role != "instruction" and (served := search.only_one(role, types, found)):
            found[role] = served
    for role, types in roles.items():
        if role not in found and role not in search.faulty:
            search.missing(role, types, found)
    search.refuse_unreadable(found.values())
    if search.faults:
        raise BagError("; ".join(search.faults))
    return BagTopics(found, outputs)


class _Search:
    """The topics of one bag and what was told of them; collects every fault."""

    def __init__(
        self,
        topics: Mapping[str, Any],
        remapped: Mapping[str, str],
        first_message: Callable[[str], Any],
    ) -> None:
        self.topics, self.remapped, self.first_message = topics, remapped, first_message
        self.faults: list[str] = []
        self.faulty: set[str] = set()
        self.commanded: set[str] = set()  # topics that carry commands: no gripper state is among them

    def refuse_unknown_roles(self, known: Iterable[str]) -> None:
        for role in self.remapped:
            if role not in known:
                near = difflib.get_close_matches(role, list(known), n=1)
                self.faults.append(
                    f"--topic {role}:=... names no input of this policy; "
                    + (f"did you mean {near[0]}?" if near else f"there are {', '.join(dict.fromkeys(known))}")
                )

    def refuse_unreadable(self, found: Iterable[Served]) -> None:
        for served in found:
            if fault := getattr(self.topics[served.topic], "fault", ""):
                self.faults.append(f"{served.topic} cannot be read: {fault}")

    def outputs(self) -> dict[str, Served]:
        """Return what was commanded and reported; nothing of it is needed, so that nothing is missed."""
        found: dict[str, Served] = {}
        for topic, about in self.topics.items():
            role = "" if getattr(about, "fault", "") else OWN.get(about.type, "")
            if role and about.count and (role not in found or about.count > found[role].count):
                found[role] = Served(role, topic, about.type, about.count, "the only one of its type")
        spaces = {served.topic.rpartition("/")[0] for role, served in found.items() if role != "scene_state"}
        twists = [topic for topic, about in self.topics.items() if about.type == TWIST and about.count]
        named = [topic for topic in twists if _last(topic) == "twist"]
        twist = self.told_or_named("twist", (TWIST,)) or next(
            (self._served("twist", few[0], "the only one of its type") for few in (named, twists) if len(few) == 1),
            None,
        )
        spaces |= {topic.rpartition("/")[0] for topic in twists}
        floats = [topic for topic, about in self.topics.items() if about.type == TYPES["gripper_state"][0]]
        self.commanded = {topic for topic in floats if topic.rpartition("/")[0] in spaces and _last(topic) == "gripper"}
        if twist:
            found["twist"] = twist
            beside = f"{twist.topic.rpartition('/')[0]}/gripper"
            gripper = self.told_or_named("gripper", TYPES["gripper_state"])
            if not gripper and beside in self.commanded and self.topics[beside].count:
                gripper = self._served("gripper", beside, "by its name")
            if gripper:
                found["gripper"] = gripper
                self.commanded.add(gripper.topic)
        return found

    def told_or_named(self, role: str, types: tuple[str, ...]) -> Served | None:
        if role in self.remapped:
            return self._told(role, types)
        fitting = [topic for topic, about in self.topics.items() if about.type in types and about.count]
        exact = [topic for topic in fitting if _plain(topic) == f"/{role}"]
        spaced = [topic for topic in fitting if _last(topic) == role]
        if role == "instruction":  # the node says again what it acts on: left/dysl_vla/instruction beside this one
            above = {_above(topic) for topic in spaced}
            spaced = [topic for topic in spaced if _above(_above(topic)) not in above]
        raw_first = sorted(exact, key=lambda topic: types.index(self.topics[topic].type))
        if raw_first:
            return self._served(role, raw_first[0], "by its name")
        return self._served(role, spaced[0], "by its name") if len(spaced) == 1 else None

    def only_one(self, role: str, types: tuple[str, ...], found: Mapping[str, Served]) -> Served | None:
        left = self._left(types, found)
        return self._served(role, left[0], "the only one of its type") if len(left) == 1 else None

    def missing(self, role: str, types: tuple[str, ...], found: Mapping[str, Served]) -> None:
        left = self._left(types, found)
        kind = " or ".join(name.rpartition("/")[2] for name in types)
        package = types[0].partition("/")[0]
        text = f"no topic for '{role}' ({package}/{kind})"
        if left:
            text += f"; of that type there are {', '.join(f'{topic} ({self._about(topic)})' for topic in left)}"
            best = max(left, key=lambda topic: self._likeness(role, topic))
            text += f"; {best} looks right: --topic {role}:={best}"
        else:
            others = ", ".join(sorted(topic for topic, about in self.topics.items() if about.count)[:12])
            text += f"; the bag has none of that type, only {others or 'empty topics'}"
        if role == "instruction":
            text += '; or say what the robot was to do: --instruction "TEXT"'
        elif not left:
            text += "; record it, or replay with a policy that does not want it"
        self._fault(role, text)

    def _told(self, role: str, types: tuple[str, ...]) -> Served | None:
        topic = self.remapped[role]
        about = self.topics.get(topic) or self.topics.get(f"/{topic}")
        if about is None:
            near = difflib.get_close_matches(topic, list(self.topics), n=1)
            listed = ", ".join(sorted(name for name, of in self.topics.items() if of.type in types)) or "none"
            guess = f"; did you mean {near[0]}?" if near else ""
            self._fault(role, f"--topic {role}:={topic}: no such topic in the bag; of that type: {listed}{guess}")
        elif about.type not in types:
            self._fault(role, f"--topic {role}:={topic} is a {about.type}, '{role}' needs {' or '.join(types)}")
        elif not about.count:
            self._fault(role, f"--topic {role}:={topic} has no message in this bag")
        else:
            return self._served(role, topic if topic in self.topics else f"/{topic}", "as told")
        return None

    def _left(self, types: tuple[str, ...], found: Mapping[str, Served]) -> list[str]:
        taken = {served.topic for served in found.values()} | self.commanded
        return [t for t, about in self.topics.items() if about.type in types and about.count and t not in taken]

    def _served(self, role: str, topic: str, how: str) -> Served:
        about = self.topics[topic]
        return Served(role, topic, about.type, about.count, how, about.rate)

    def _fault(self, role: str, text: str) -> None:
        if role not in self.faulty:
            self.faulty.add(role)
            self.faults.append(text)

    def _about(self, topic: str) -> str:
        about, parts = self.topics[topic], []
        message = self.first_message(topic) if about.type == IMAGE else None
        if message is not None:
            parts.append(f"{message.width}x{message.height} {message.encoding}")
        if about.rate:
            parts.append(f"{about.rate:.3g} Hz")
        return ", ".join([*parts, f"{about.count} messages"])

    def _likeness(self, role: str, topic: str) -> float:
        """Say how much a topic looks like what a role is called; a picture that we cannot read looks like nothing."""
        if self.topics[topic].type == IMAGE and "image" in role:
            message = self.first_message(topic)
            if message is not None and message.encoding not in ENCODINGS:
                return -1.0
        words = set(_plain(topic).replace("/", "_").split("_")) & set(role.split("_"))
        close = max(difflib.SequenceMatcher(None, role, part).ratio() for part in (_last(topic), _plain(topic)))
        return len(words) + close - ("depth" in topic)


def _plain(topic: str) -> str:
    """Return a topic without what image_transport puts behind it."""
    return topic.removesuffix("/compressed")


def _above(topic: str) -> str:
    """Return the namespace that a topic, or a namespace, lies in."""
    return _plain(topic).rpartition("/")[0]


def _last(topic: str) -> str:
    return _plain(topic).rpartition("/")[2]
