"""The simulated tasks: which Meta-World environment, how it is asked for in words, which goal markers are shown.

EASY: one motion, the goal in sight. HARD: long or exact ones, and a scene with three markers in which only the
instruction says where the puck goes. BOARD: the instruction also sets how many steps it takes to find the goal
(``board.py``): its chains from which everybody learns, those set aside and those held out are a set each. A set's name
stands for its tasks wherever tasks are named.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from dysl_vla_ros.errors import DataError
from dysl_vla_ros.simulation.board import CHAINS, Chain, kind_of
from dysl_vla_ros.simulation.seeds import TEST_SEEDS

CONTROL_PERIOD = 0.05  # s between two actions of the policy
SIMULATION_STEP = 0.0125  # s of one Meta-World step
FULL_SPEED = 0.8  # m/s: Meta-World's action of 1.0, which is 1 cm per simulation step
EXPERT_SPEED = (
    0.25  # m/s, each axis, of the experts and so of the policy: a step of the size that they were written for
)
EVALUATION_SEED = TEST_SEEDS.start  # the first scene of every closed-loop table


Colour = tuple[float, float, float]  # red, green, blue, 0 to 1


@dataclass(frozen=True)
class Task:
    """One task of the simulated robot."""

    name: str
    environment: str  # Meta-World's name
    expert: str  # class in metaworld.policies
    instructions: tuple[str, ...]  # trained; the first is the canonical one
    held_out: tuple[str, ...]  # never trained, for measuring whether words or sentences were learnt
    marker: Colour | None = None  # colour of the goal, shown where nothing else says where it is
    markers: tuple[Colour, ...] = ()  # all that are laid out at random; other instructions would ask for the others
    chain: Chain | None = None  # of the board, which is laid out then
    sampling_weight: float = 1.0  # in training

    @property
    def instruction(self) -> str:
        """The canonical instruction."""
        return self.instructions[0]


RED, GREEN, BLUE = (1.0, 0.1, 0.1), (0.1, 0.8, 0.1), (0.1, 0.2, 1.0)
COLOURS = {"red": RED, "green": GREEN, "blue": BLUE}

EASY = (
    Task(
        "reach",
        "reach-v3",
        "SawyerReachV3Policy",
        ("reach the red marker", "go to the red marker", "move the hand to the red marker"),
        ("move to the red marker", "bring the hand to the red marker"),
        marker=RED,
        sampling_weight=1.5,
    ),
    Task(
        "push",
        "push-v3",
        "SawyerPushV3Policy",
        (
            "push the puck to the green marker",
            "slide the puck to the green marker",
            "move the puck to the green marker",
        ),
        ("bring the puck to the green marker", "slide the puck onto the green marker"),
        marker=GREEN,
        sampling_weight=1.5,
    ),
    Task(
        "pick-place",
        "pick-place-v3",
        "SawyerPickPlaceV3Policy",
        (
            "lift the puck to the blue marker",
            "pick up the puck to the blue marker",
            "bring the puck up to the blue marker",
        ),
        ("pick the puck up to the blue marker", "move the puck up to the blue marker"),
        marker=BLUE,
        sampling_weight=1.5,
    ),
    Task(
        "drawer-open",
        "drawer-open-v3",
        "SawyerDrawerOpenV3Policy",
        ("open the drawer", "pull the drawer open", "pull out the drawer"),
        ("slide the drawer open", "pull the drawer out"),
    ),
    Task(
        "drawer-close",
        "drawer-close-v3",
        "SawyerDrawerCloseV3Policy",
        ("close the drawer", "push the drawer shut", "slide the drawer shut"),
        ("shut the drawer", "push in the drawer"),
    ),
    Task(
        "button-press",
        "button-press-topdown-v3",
        "SawyerButtonPressTopdownV3Policy",
        ("press the button", "push the button down", "press down the button"),
        ("push down the button", "press the button down"),
    ),
    Task(
        "window-open",
        "window-open-v3",
        "SawyerWindowOpenV3Policy",
        ("open the window", "slide the window open", "push the window open"),
        ("slide open the window", "move the window open"),
    ),
    Task(
        "door-open",
        "door-open-v3",
        "SawyerDoorOpenV3Policy",
        ("open the door", "pull the door open", "swing the door open"),
        ("swing open the door", "move the door open"),
    ),
)


def _push_to(name: str) -> Task:
    """One of the three instructions of the scene with three markers."""
    return Task(
        f"push-{name}",
        "push-v3",
        "SawyerPushV3Policy",
        (
            f"push the puck onto the {name} spot",
            f"slide the puck to the {name} spot",
            f"move the puck over to the {name} spot",
        ),
        (f"bring the puck to the {name} spot", f"push the puck over to the {name} spot"),
        marker=COLOURS[name],
        markers=tuple(COLOURS.values()),
        sampling_weight=1.5,
    )


HARD = (
    Task(
        "peg-insert-side",
        "peg-insert-side-v3",
        "SawyerPegInsertionSideV3Policy",
        ("insert the peg in the hole", "put the peg into the hole", "push the peg into the hole"),
        ("slide the peg into the hole", "place the peg in the hole"),
        sampling_weight=2.0,
    ),
    Task(
        "assembly",
        "assembly-v3",
        "SawyerAssemblyV3Policy",
        ("put the ring on the peg", "place the ring over the peg", "slide the ring onto the peg"),
        ("bring the ring onto the peg", "put the ring over the peg"),
        sampling_weight=2.0,
    ),
    Task(
        "pick-place-wall",
        "pick-place-wall-v3",
        "SawyerPickPlaceWallV3Policy",
        ("lift the puck over the wall", "bring the puck over the wall", "pick the puck up over the wall"),
        ("move the puck over the wall", "lift the puck up over the wall"),
        marker=BLUE,
        sampling_weight=1.5,
    ),
    Task(
        "basketball",
        "basketball-v3",
        "SawyerBasketballV3Policy",
        ("put the ball in the basket", "drop the ball into the basket", "bring the ball to the basket"),
        ("place the ball in the basket", "put the ball into the basket"),
        sampling_weight=1.5,
    ),
    Task(
        "box-close",
        "box-close-v3",
        "SawyerBoxCloseV3Policy",
        ("close the box", "put the lid on the box", "place the lid over the box"),
        ("shut the box", "place the lid on the box"),
        sampling_weight=1.5,
    ),
    Task(
        "stick-push",
        "stick-push-v3",
        "SawyerStickPushV3Policy",
        ("push the bottle with the stick", "use the stick to push the bottle", "slide the bottle with the stick"),
        ("move the bottle with the stick", "use the stick to slide the bottle"),
        sampling_weight=1.5,
    ),
    *(_push_to(name) for name in COLOURS),
)


def _along(chain: Chain) -> Task:
    """The task of the board that one chain asks for."""
    goal = chain.words if chain.hops else f"to {chain.words}"
    return Task(
        f"board-{chain.colour}-{chain.hops}",
        "push-v3",
        "SawyerPushV3Policy",
        (f"push the puck {goal}", f"slide the puck {goal}", f"move the puck {goal}"),
        (f"bring the puck {goal}", f"pull the puck {goal}"),
        chain=chain,
    )


BOARD, BOARD_SET_ASIDE, BOARD_HELD_OUT = (
    tuple(_along(chain) for chain in CHAINS if kind_of(chain) == kind) for kind in ("trained", "set_aside", "held_out")
)

TASK_SETS: dict[str, tuple[Task, ...]] = {
    "easy": EASY,
    "hard": HARD,
    "board": BOARD,
    "board-set-aside": BOARD_SET_ASIDE,
    "board-held-out": BOARD_HELD_OUT,
}
TASKS: dict[str, Task] = {task.name: task for tasks in TASK_SETS.values() for task in tasks}
DEFAULT_SETS = ("easy", "hard")  # where none are named
TASK_CHOICES = (  # for the help of `--tasks`
    f"{', '.join(task.name for task in (*EASY, *HARD))}, board-COLOUR-HOPS (board-red-2) and the sets "
    f"{', '.join(TASK_SETS)}"
)


def set_of(task: Task) -> str:
    """Return the name of the set that a task is in."""
    return next(name for name, tasks in TASK_SETS.items() if task in tasks)


def require_learnable(tasks: Sequence[Task]) -> None:
    """Refuse tasks that nobody learns or chooses from.

    Raises:
        DataError: which.
    """
    held_out = [task for task in tasks if task in BOARD_HELD_OUT]
    if held_out:
        raise DataError(f"{names_of(held_out)}: held out, for evaluations alone; nothing is learned or chosen from it")


def chosen_on(tasks: Sequence[Task]) -> list[Task]:
    """Return the tasks on which is chosen what ``tasks`` show: in place of those held out, those set aside.

    Of the board's chains those that are as long as one that is held out.
    """
    lengths = {task.chain.hops for task in tasks if task in BOARD_HELD_OUT and task.chain}
    in_place = [task for task in BOARD_SET_ASIDE if task.chain and task.chain.hops in lengths]
    return list(dict.fromkeys([*(task for task in tasks if task not in BOARD_HELD_OUT), *in_place]))


def names_of(tasks: Sequence[Task]) -> str:
    """Return the names of tasks for a message; one name for a set that is there as a whole."""
    names: list[str] = []
    for name, own in TASK_SETS.items():
        there = [task.name for task in own if task in tasks]
        names += [name] if len(there) == len(own) else there
    return ", ".join(names)


def siblings(task: Task) -> list[Task]:
    """Return the other tasks whose instructions are valid in a task's scene: they lay out the same goals."""
    if not (task.markers or task.chain):
        return []
    layout = (task.environment, task.markers, task.chain is None)
    tasks = (own for own in TASKS.values() if own != task)
    return [own for own in tasks if (own.environment, own.markers, own.chain is None) == layout]


def task_named(name: str) -> Task:
    """Return a task by name.

    Raises:
        DataError: there is none; the message lists those there are.
    """
    if name not in TASKS:
        raise DataError(f"unknown task '{name}'; there are {TASK_CHOICES}")
    return TASKS[name]


def tasks_named(names: Sequence[str] | None) -> list[Task]:
    """Return the named tasks, each once, in the order named; a set's name stands for its tasks; none named: easy, hard.

    Raises:
        DataError: a name is neither a task's nor a set's; the message lists those there are.
    """
    chosen: dict[str, Task] = {}
    for name in names or DEFAULT_SETS:
        if name not in TASKS and name not in TASK_SETS:
            raise DataError(f"unknown task '{name}'; there are {TASK_CHOICES}")
        chosen |= {task.name: task for task in TASK_SETS.get(name) or (TASKS[name],)}
    return list(chosen.values())
