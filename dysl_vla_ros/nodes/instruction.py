"""The instruction that was heard last: in force, or refused with the reason, and what the policy warns of.

Under the control loop's lock; no rclpy in it. A text is judged twice: at once by the rules for any text
(:mod:`~dysl_vla_ros.readings.instructions`), and by the policy with the first inference that it is for, as only the
worker knows which words that policy reads. A refused one is not asked about again until another one comes.
"""

from dysl_vla_ros.readings import instruction_fault

SHOWN = 80  # characters of an instruction in texts about it


class Instruction:
    """What the arm shall do, as far as it is known.

    Attributes:
        refusal: why nothing may be done until another instruction comes; "" where the text is in force.
        warning: what the policy does not know of the text in force, "" where it knows all or was not asked yet.
    """

    def __init__(self) -> None:
        """Begin with nothing heard."""
        self._text = ""
        self._source = ""
        self.refusal = ""
        self.warning = ""

    @property
    def in_force(self) -> str:
        """The text to act upon; "" where none was heard, a blank one, or one that is refused."""
        return "" if self.refusal else self._text

    def hear(self, text: str, source: str) -> bool:
        """Take a text; return whether it is another one than the last: repeated by its publisher it says nothing new.

        Args:
            text: without blanks around it; "": wait.
            source: topic or parameter that it came by, for texts.
        """
        if text == self._text:
            return False
        self._text, self._source = text, source
        self.refusal = self.warning = ""
        if fault := instruction_fault(text):
            self.refuse(fault)
        return True

    def refuse(self, why: str) -> None:
        """Note that it cannot be acted upon: the arm stands still until another one comes."""
        self.refusal = f"{self._named}: instruction refused: {why}; the arm stands still until another one comes"

    def warn(self, warnings: tuple[str, ...]) -> bool:
        """Take what the policy says of the text in force; return whether that is news."""
        told = f"{self._named}: {'; '.join(warnings)}" if warnings else self.warning
        news, self.warning = told != self.warning, told
        return news

    @property
    def _named(self) -> str:
        return f"{self._source}: {self._text!r:.{SHOWN}}"
