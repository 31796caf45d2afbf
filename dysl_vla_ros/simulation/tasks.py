"""The simulated tasks: which Meta-World environment, how it is asked for in words, which goal marker is shown."""

from dataclasses import dataclass

from dysl_vla_ros.errors import DataError

CONTROL_PERIOD = 0.05  # s between two actions of the policy
SIMULATION_STEP = 0.0125  # s of one Meta-World step
FULL_SPEED = 0.8  # m/s: Meta-World's action of 1.0, which is 1 cm per simulation step
EXPERT_SPEED = (
    0.25  # m/s, each axis, of the experts and so of the policy: a step of the size that they were written for
)
EVALUATION_SEED = 10_000  # the first scene of every closed-loop table; demonstrations use seeds below it


@dataclass(frozen=True)
class Task:
    """One task of the simulated robot."""

    name: str
    environment: str  # Meta-World's name
    expert: str  # class in metaworld.policies
    instructions: tuple[str, ...]  # the first is the canonical one, the others are trained too
    marker: tuple[float, float, float] | None = None  # colour of the goal, shown where nothing else says where it is
    sampling_weight: float = 1.0  # in training

    @property
    def instruction(self) -> str:
        """The canonical instruction."""
        return self.instructions[0]


RED, GREEN, BLUE = (1.0, 0.1, 0.1), (0.1, 0.8, 0.1), (0.1, 0.2, 1.0)

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            "reach",
            "reach-v3",
            "SawyerReachV3Policy",
            ("reach the red marker", "go to the red marker"),
            marker=RED,
            sampling_weight=1.5,
        ),
        Task(
            "push",
            "push-v3",
            "SawyerPushV3Policy",
            ("push the puck to the green marker", "slide the puck to the green marker"),
            marker=GREEN,
            sampling_weight=1.5,
        ),
        Task(
            "pick-place",
            "pick-place-v3",
            "SawyerPickPlaceV3Policy",
            ("lift the puck to the blue marker", "pick up the puck to the blue marker"),
            marker=BLUE,
            sampling_weight=1.5,
        ),
        Task("drawer-open", "drawer-open-v3", "SawyerDrawerOpenV3Policy", ("open the drawer", "pull the drawer open")),
        Task(
            "drawer-close", "drawer-close-v3", "SawyerDrawerCloseV3Policy", ("close the drawer", "push the drawer shut")
        ),
        Task(
            "button-press",
            "button-press-topdown-v3",
            "SawyerButtonPressTopdownV3Policy",
            ("press the button", "push the button down"),
        ),
        Task("window-open", "window-open-v3", "SawyerWindowOpenV3Policy", ("open the window", "slide the window open")),
        Task("door-open", "door-open-v3", "SawyerDoorOpenV3Policy", ("open the door", "pull the door open")),
    )
}


def task_named(name: str) -> Task:
    """Return a task by name.

    Raises:
        DataError: there is none; the message lists those there are.
    """
    if name not in TASKS:
        raise DataError(f"unknown task '{name}'; there are {', '.join(TASKS)}")
    return TASKS[name]


def tasks_named(names: list[str] | None) -> list[Task]:
    """Return the named tasks, all where none is named."""
    return [task_named(name) for name in names] if names else list(TASKS.values())
