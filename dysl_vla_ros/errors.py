"""The errors that a user can cause or meet; each message names the thing, where it is, and the mend.

A command prints the message in one line and exits with 2; a node logs it and puts it into ``/diagnostics``.
Our own mistakes stay ``AssertionError`` and keep their traceback.
"""


class DyslVlaError(Exception):
    """Base of everything below: one line, no traceback shown to a user."""


class CheckpointError(DyslVlaError):
    """A checkpoint or DySL folder is missing, damaged, or belongs to something else."""


class SettingError(DyslVlaError):
    """A setting is of the wrong type, out of range, or contradicts another one."""


class ContractError(SettingError):
    """What the user must say of the robot is missing or does not fit the checkpoint.

    Attributes:
        draft: the block of a parameter file that says it, to be filled in.
    """

    def __init__(self, text: str, draft: str = "") -> None:
        super().__init__(text)
        self.draft = draft


class ObservationError(DyslVlaError):
    """An image, proprioception or instruction cannot be given to the policy."""


class InstructionError(ObservationError):
    """The policy cannot read the instruction; the text is the policy's own words."""


class NonFiniteActionError(DyslVlaError):
    """The model returned NaN or infinity, or no rotation where one is meant; the action is refused."""


class WorkerError(DyslVlaError):
    """The policy worker refused, failed, or is gone.

    Attributes:
        draft: the block of a parameter file that is missing something, where that is why; else "".
    """

    def __init__(self, text: str = "", draft: str = "") -> None:
        super().__init__(text)
        self.draft = draft


class WorkerLostError(WorkerError):
    """The policy worker is gone or going; whoever started it is told the cause by itself."""


class DataError(DyslVlaError):
    """A data set, bag or output folder cannot serve."""


class BagError(DyslVlaError):
    """A recording cannot be read or written."""
