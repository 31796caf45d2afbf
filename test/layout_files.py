"""What the layouts of Foxglove and PlotJuggler name: every topic and field of them, held against message classes.

The rules are the tools' own: Foxglove's message path grammar and panel types (foxglove/studio, now Lichtblick), the
element names that PlotJuggler 3 writes and the series names that its ROS parser gives.
"""

import importlib
import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

INTEGERS = tuple(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
NUMBERS = ("boolean", "octet", "float", "double", *INTEGERS)
STATES = ("string", "boolean", "octet", *INTEGERS)  # what State Transitions draws
PICTURES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
STATUSES = ("diagnostic_msgs/msg/DiagnosticArray",)
STREAMER = "ROS2 Topic Subscriber"


@dataclass(frozen=True)
class Shown:
    """One thing that a layout shows.

    Attributes:
        where: panel or plot, for messages.
        topic: that it is taken from.
        steps: the way to the field: names, and "[]" for the elements of an array.
        kinds: types of the field that can be shown there; of the topic where there are no steps, empty: any.
    """

    where: str
    topic: str
    steps: tuple[str, ...]
    kinds: tuple[str, ...]


def message_class(kind: str) -> Any:
    """Return the class of "package/msg/Name"."""
    package, _, name = kind.partition("/msg/")
    return getattr(importlib.import_module(f"{package}.msg"), name)


def fault(path: Shown, published: Mapping[str, str]) -> str:
    """Return why a path shows nothing, "" where it shows something.

    Args:
        path: of a layout.
        published: topic to type, "package/msg/Name".
    """
    if path.topic not in published:
        return f"{path.where}: nobody publishes {path.topic}"
    kind = published[path.topic]
    if not path.steps:
        wrong = bool(path.kinds) and kind not in path.kinds
        return f"{path.where}: {path.topic} is {kind}" if wrong else ""
    here: Any = message_class(kind)
    for step in path.steps:
        if step == "[]":
            if not hasattr(here, "value_type"):
                return f"{path.where}: in {path.topic}, {path.steps} takes elements of what is no array"
            here = here.value_type
        else:
            if hasattr(here, "namespaces"):
                here = message_class(f"{here.namespaces[0]}/msg/{here.name}")
            names = here.get_fields_and_field_types() if hasattr(here, "SLOT_TYPES") else {}
            fields = dict(zip(names, here.SLOT_TYPES, strict=True)) if names else {}
            if step not in fields:
                return f"{path.where}: {path.topic} has no field {'.'.join(path.steps)}"
            here = fields[step]
    found = getattr(here, "typename", "string" if "String" in type(here).__name__ else type(here).__name__)
    return "" if found in path.kinds else f"{path.where}: {path.topic} {'.'.join(path.steps)} is a {found}"


# -- Foxglove --------------------------------------------------------------------------------------------------------


def message_path(text: str) -> tuple[str, tuple[str, ...]]:
    """Take a message path apart: ``/topic.field[:].field``; filters, variables and modifiers are not used here."""
    match = re.fullmatch(r"((?:/[A-Za-z0-9_-]+)+)((?:\.[A-Za-z0-9_-]+(?:\[\d*:?\d*\])?)*)", text)
    assert match, f"not a message path: {text}"
    steps = re.findall(r"\.([A-Za-z0-9_-]+)|(\[)", match[2])
    return match[1], tuple(name or "[]" for name, _ in steps)


def foxglove_paths(layout: Mapping[str, Any]) -> Iterator[Shown]:
    """Return everything that a Foxglove layout shows."""
    for panel, config in layout["configById"].items():
        kind = panel.partition("!")[0]
        if kind in ("Plot", "StateTransitions"):
            assert config["paths"], panel
            for each in config["paths"]:
                assert each["timestampMethod"] in ("receiveTime", "headerStamp"), panel
                topic, steps = message_path(each["value"])
                assert ("[]" in steps) == (config.get("xAxisVal") == "index"), f"{panel}: {each['value']}"
                yield Shown(panel, topic, steps, NUMBERS if kind == "Plot" else STATES)
        elif kind == "Image":
            yield Shown(panel, config["imageMode"]["imageTopic"], (), PICTURES)
        elif kind in ("DiagnosticSummary", "DiagnosticStatusPanel"):
            yield Shown(panel, config["topicToRender"], (), STATUSES)
        elif kind == "RawMessages":
            yield Shown(panel, *message_path(config["topicPath"]), ())
        else:
            assert kind == "Tab", f"{panel} is no panel that this test knows"


def panels_shown(layout: Mapping[str, Any]) -> list[str]:
    """Return the panels that the tree of a Foxglove layout places, those in tabs included, in its order."""

    def walk(node: Any) -> Iterator[str]:
        if isinstance(node, str):
            yield node
            for tab in layout["configById"][node].get("tabs", []):
                assert set(tab) == {"title", "layout"}
                yield from walk(tab["layout"])
        else:
            assert set(node) == {"direction", "first", "second", "splitPercentage"}
            assert node["direction"] in ("row", "column") and 0 < node["splitPercentage"] < 100
            yield from walk(node["first"])
            yield from walk(node["second"])

    return list(walk(layout["layout"]))


def read_foxglove(text: str) -> dict[str, Any]:
    """Return a Foxglove layout; its parts are those that Foxglove exports."""
    layout: dict[str, Any] = json.loads(text)
    assert set(layout) == {"configById", "globalVariables", "userNodes", "playbackConfig", "layout"}
    return layout


# -- PlotJuggler -----------------------------------------------------------------------------------------------------


def streamed_topics(root: ElementTree.Element) -> list[str]:
    """Return the topics that the layout lets the streamer subscribe to."""
    plugin = next(plugin for plugin in root.iterfind("Plugins/plugin") if plugin.get("ID") == STREAMER)
    return str(plugin.find("selected_topics").get("value")).split(";")  # type: ignore[union-attr]


def plotjuggler_paths(root: ElementTree.Element) -> Iterator[Shown]:
    """Return everything that a PlotJuggler layout shows."""
    topics = streamed_topics(root)
    for area in root.iter("DockArea"):
        for curve in area.iterfind("plot/curve"):
            name = str(curve.get("name"))
            topic = next((topic for topic in topics if name.startswith(f"{topic}/")), "")
            assert topic, f"{name} is of no topic that the streamer subscribes to"
            steps = re.sub(r"\[\d+\]", "/[]", name.removeprefix(f"{topic}/")).split("/")
            yield Shown(str(area.get("name")), topic, tuple(steps), NUMBERS)


def read_plotjuggler(text: str) -> ElementTree.Element:
    """Return a PlotJuggler layout whose tree is as PlotJuggler 3 writes and reads it."""
    root = ElementTree.fromstring(text)
    assert root.tag == "root"
    (window,) = root.iterfind("tabbed_widget")
    assert (window.get("name"), window.get("parent")) == ("Main Window", "main_window")
    assert {child.tag for child in window} == {"Tab", "currentTabIndex"}
    for tab in window.iterfind("Tab"):
        containers = list(tab)
        assert [each.tag for each in containers] == ["Container"] * int(str(tab.get("containers")))
        for splitter in (splitter for container in containers for splitter in container):
            areas = list(splitter)
            assert splitter.tag == "DockSplitter" and splitter.get("orientation") in ("-", "|")
            sizes = [float(size) for size in str(splitter.get("sizes")).split(";")]
            assert len(areas) == len(sizes) == int(str(splitter.get("count"))) and abs(sum(sizes) - 1.0) < 1e-3
            for area in areas:
                (plot,) = area
                assert area.tag == "DockArea" and plot.tag == "plot" and plot.get("mode") == "TimeSeries"
                assert plot.get("style") in ("Lines", "Dots", "LinesAndDots", "Sticks", "Steps", "StepsInv")
                assert {child.tag for child in plot} == {"range", "limitY", "curve"}
                assert all(re.fullmatch("#[0-9a-f]{6}", str(curve.get("color"))) for curve in plot.iterfind("curve"))
    (streamer,) = root.iterfind("previouslyLoaded_Streamer")
    assert streamer.get("name") == STREAMER
    return root
