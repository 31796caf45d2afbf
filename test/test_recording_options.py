"""Every command that reads recordings reads them alike: what is left out, what the user says, what is kept of it."""

import json
import re
import shlex

import pytest
from rosbags.rosbag2 import StoragePlugin

from dysl_vla_ros.bags.reader import BagReader
from dysl_vla_ros.commands.main import available_verbs, build_parser, main
from dysl_vla_ros.recordings.source import Choice, open_source
from dysl_vla_ros.replay.run import FULL, SKIPPING, Side, replay_moments
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import FULL_DEPTH, RuntimeSettings, SafetySettings
from tiny_bag import write_tiny_bag
from tiny_checkpoint import INSTRUCTION, make_tiny_checkpoint, make_tiny_dysl

OTHER = "open the drawer"
TOO_LONG = "push the puck and then open the drawer and push"
STRANGE = "hol mir einen kaffee"
CONTROL = "push\x07the puck"
COMMANDS = ("calibrate", "tune", "replay", "distill", "floors")
IN_TURN = pytest.mark.parametrize(  # those of the default suite read in the three ways that there are
    "verbs", [COMMANDS[:3], pytest.param(COMMANDS[3:], marks=pytest.mark.slow)], ids=["each way", "the others"]
)
FRAME = "base_link:=base"
STEPS = ("--hidden-steps", "2", "--action-steps", "2", "--observations", "12", "--no-compile")


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """A checkpoint without adapters and one with some."""
    plain = make_tiny_checkpoint(tmp_path_factory.mktemp("bases") / "plain")
    with_adapters = make_tiny_checkpoint(tmp_path_factory.mktemp("bases") / "adapters")
    make_tiny_dysl(with_adapters / "dysl", with_adapters)
    return plain, with_adapters


def words(verb, bag, bases, out):
    """The shortest run of a command on a bag, with what it writes under ``out``."""
    plain, with_adapters = map(str, bases)
    bag, dysl = str(bag), str(out / "dysl")
    return {
        "calibrate": ["calibrate", plain, bag, "--adapters", dysl, "--static", "spread", "--observations", "12"],
        "distill": ["distill", plain, bag, "--adapters", dysl, *STEPS, "--joint-steps", "2"],
        "floors": [
            *("floors", plain, bag, "--out", str(out / "floors"), *STEPS),
            *("--static-layers", "2", "--static", "spread", "--adapter", "pooled"),
        ],
        "tune": [
            *("tune", bag, "--checkpoint", with_adapters, "--out", str(out / "tuned")),
            *("--max-deviation", "1000", "--trials", "10", "--inferences", "20"),
        ],
        "replay": ["replay", bag, "--checkpoint", with_adapters, "--out", str(out / "replay")],
    }[verb]


@IN_TURN
def test_what_cannot_be_read_is_left_out_counted_and_named_by_every_command_alike(verbs, bases, tmp_path, capsys):
    said = [INSTRUCTION, TOO_LONG, OTHER, INSTRUCTION, STRANGE, OTHER, CONTROL, INSTRUCTION, OTHER]
    steps = [2.0] * 6 + [-59.0, 2.0, 2.0]
    bag = write_tiny_bag(tmp_path / "bag", ticks=6, episodes=said, steps=steps, plugin=StoragePlugin.MCAP)
    if "distill" in verbs:
        assert main(words("calibrate", bag, bases, tmp_path)) == 0
        capsys.readouterr()
    for verb in verbs:
        assert main(words(verb, bag, bases, tmp_path)) == 0, verb
        printed = capsys.readouterr()
        told = " ".join((printed.out + printed.err).split())
        for text, why in (
            (TOO_LONG, "the instruction has 10 words, this policy reads 8; shorten it"),
            (STRANGE, f"the policy knows no word of '{STRANGE}'"),
            (CONTROL, "character 4 of the instruction is the control character U+0007"),
        ):
            assert f"The instruction {text!r:.60} on /instruction is left out: {why}" in told, verb
        assert told.count("(6 frames).") == 3, f"{verb}: {told}"
        assert "the clock was set back by 59.0" in told, verb
        assert not re.search(r"messages or frames could not serve", told), verb
        if verb in ("calibrate", "distill", "floors"):
            assert "in 6 episodes of 2 instructions, 36 frames" in told
        if verb == "tune":
            assert " of 6 episodes of bag: searched" in told
        if verb == "replay":
            assert "36 of 54 frames used, 6 episodes" in told
    if "replay" not in verbs:
        return
    found = json.loads((tmp_path / "replay" / "replay.json").read_text())
    left_out = {own["text"]: own["frames"] for own in found["bag"]["frames"]["instructions_left_out"]}
    assert left_out == {TOO_LONG: 6, STRANGE: 6, CONTROL: 6}
    assert [own["instruction"] for own in found["episodes"]] == [text for text in said if text in (INSTRUCTION, OTHER)]
    times = [own["time"] for own in found["moments"]]
    assert times == sorted(times) and times[0] == 0.0
    assert main([*words("replay", bag, bases, tmp_path), "--strict"]) == 2
    assert "the clock was set back by" in capsys.readouterr().err


@IN_TURN
def test_a_recording_without_stamps_in_another_frame_is_refused_by_every_command_and_serves_as_the_user_says(
    verbs, bases, tmp_path, capsys
):
    bag = write_tiny_bag(tmp_path / "bag", ticks=6, episodes=(INSTRUCTION, OTHER) * 2, stamped=False, frame="base_link")
    told = ["--stamps", "received", "--frame", FRAME]
    if "distill" in verbs:
        assert main([*words("calibrate", bag, bases, tmp_path), *told]) == 0
    for verb in verbs:
        capsys.readouterr()
        assert main(words(verb, bag, bases, tmp_path if verb == "distill" else tmp_path / "refused")) == 2, verb
        refusal = capsys.readouterr().err
        assert "none of 24 frames can serve" in refusal and "give --stamps received" in refusal, verb
        assert f"give --frame {FRAME}" in refusal, verb
    for verb in verbs:
        capsys.readouterr()
        assert main([*words(verb, bag, bases, tmp_path), *told]) == 0, verb
        printed = capsys.readouterr()
        shown = " ".join((printed.out + printed.err).split())
        assert "Stamps are the times of reception (--stamps received)." in shown, verb
        assert "Frame 'base_link' is read as 'base' in 24 poses (--frame)." in shown, verb
        for line in re.findall(r"next: (dysl_vla .*)", printed.out):
            _, following, *rest = shlex.split(line)
            parsed = build_parser(available_verbs(), following).parse_args([following, *rest])
            assert (parsed.stamps, parsed.frame) == ("received", [FRAME]), line
    kept = {"stamps": "received", "frames": {"base_link": "base"}}
    written = ["static_layers.json"] if "calibrate" in verbs else ["distillation.json", "calibration.json"]
    for name in written:
        assert json.loads((tmp_path / "dysl" / name).read_text())["recordings"] == {"bags": [str(bag)], **kept}, name
    if "floors" in verbs:
        plan = json.loads((tmp_path / "floors" / "floors.json").read_text())["plan"]
        assert {name: plan[name] for name in kept} == kept
        assert main(words("floors", bag, bases, tmp_path)) == 2
        assert "holds floors made with other stamps, frames" in capsys.readouterr().err
        return
    replayed = json.loads((tmp_path / "replay" / "replay.json").read_text())
    assert replayed["bag"]["told"] == kept and "(--stamps received)" in replayed["bag"]["stamps"]
    assert "frame base_link is read as base (--frame)" in (tmp_path / "replay" / "replay.html").read_text()
    _, verb, *rest = shlex.split(json.loads((tmp_path / "tuned" / "tune.json").read_text())["command"])
    parsed = build_parser(available_verbs(), verb).parse_args([verb, *rest])
    assert (parsed.stamps, parsed.frame) == ("received", [FRAME])


@pytest.mark.parametrize("verb", COMMANDS)
def test_every_command_teaches_the_options_in_the_same_words(verb, capsys):
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for part in (
        "--topic INPUT:=TOPIC",
        "--instruction TEXT",
        "--stamps {header,received}",
        "when each message was received, for drivers that left them 0 (default: header)",
        "--frame FOUND:=WANTED",
        "the same frame by another name, nothing is transformed",
    ):
        assert part in shown


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--frame", "base_link=base"], "--frame 'base_link=base' must have the form FOUND:=WANTED"),
        (["--frame", "a:=base", "--frame", "a:=tool"], "--frame names 'a' twice: 'base' and 'tool'"),
        (["--frame", "a:=tool"], "--frame a:=tool: the policy names no frame 'tool'; its frame is base"),
        (["--instruction", TOO_LONG], f"--instruction '{TOO_LONG}': the instruction has 10 words"),
    ],
)
@pytest.mark.parametrize("verb", ["calibrate", "tune", "replay"])
def test_an_option_that_makes_no_sense_is_refused_by_its_name(verb, options, said, bases, tmp_path, capsys):
    bag = write_tiny_bag(tmp_path / "bag", ticks=2)
    assert main([*words(verb, bag, bases, tmp_path), *options]) == 2
    assert said in capsys.readouterr().err


def test_options_for_bags_are_refused_where_there_is_none(bases, tmp_path, capsys):
    (tmp_path / "demos" / "push").mkdir(parents=True)
    (tmp_path / "demos" / "push" / "000.npz").write_bytes(b"")
    for arguments in ([str(bases[0]), str(tmp_path / "demos")], [str(bases[1])]):
        assert main(["calibrate", *arguments, "--stamps", "received"]) == 2
        assert "--stamps received says how bags are read, and there is no bag" in capsys.readouterr().err


def test_episodes_too_short_to_use_are_counted_and_said(bases, tmp_path, capsys):
    bag = write_tiny_bag(tmp_path / "bag", ticks=5, episodes=(INSTRUCTION, OTHER) * 2)
    short = write_tiny_bag(tmp_path / "short", ticks=1, episodes=(INSTRUCTION, OTHER) * 2)
    for verb, said in (
        ("tune", f"{short}: 4 episodes of fewer than 5 inferences are left out."),
        ("calibrate", f"{short}: 4 episodes of a single frame are left out."),
    ):
        command = words(verb, bag, bases, tmp_path)
        command.insert(command.index(str(bag)) + 1, str(short))
        assert main(command) == 0
        assert said in capsys.readouterr().err
    assert main(words("replay", short, bases, tmp_path)) == 0
    assert "4 of 4 frames used, 4 episodes" in " ".join(capsys.readouterr().out.split())


def test_an_episode_whose_inferences_fail_is_not_counted_and_none_is_counted_twice(bases, tmp_path):
    bag = write_tiny_bag(tmp_path / "bag", ticks=4, episodes=(INSTRUCTION, TOO_LONG, OTHER, TOO_LONG, STRANGE))
    runtime = Runtime.load(str(bases[1]), "")
    sides = [
        Side(FULL, Runtime(runtime.policy, runtime.dysl), FULL_DEPTH),
        Side(SKIPPING, runtime, RuntimeSettings()),
    ]
    with BagReader(bag) as reader:
        source = open_source(reader, runtime.description, SafetySettings(), Choice())  # nothing is judged beforehand
        done = replay_moments(source.moments, sides, source.moments.refuse)
    assert [episode.instruction for episode in done.episodes] == [INSTRUCTION, OTHER]
    assert done.moments["episode"].tolist() == [0] * 4 + [1] * 4
    assert sum(refusal.count for refusal in source.moments.refused.values()) == 12
