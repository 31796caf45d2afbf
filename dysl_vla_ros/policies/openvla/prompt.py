"""The words that OpenVLA-OFT reads, as its training wrote them around an instruction."""

from pathlib import Path

from tokenizers import Tokenizer

from dysl_vla_ros.errors import CheckpointError, InstructionError
from dysl_vla_ros.policies.checkpoint import MEND, looks_like

BEGIN, STOP, EMPTY = 1, 2, 29871  # ids of Llama 2's words: <s>, </s>, and the empty word behind a colon
PROMPT = "In: What action should the robot take to {}?\nOut:"


class Prompt:
    """Turns instructions into word ids."""

    def __init__(self, path: Path, words: int, longest: int) -> None:
        """Read a tokenizer.

        Args:
            path: of ``tokenizer.json``.
            words: rows of the model's embedding.
            longest: most words of a prompt.

        Raises:
            CheckpointError: it is none, or another model's.
        """
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises no class of its own
            raise CheckpointError(f"{path} is {looks_like(path)}: {error!s:.200}; {MEND}") from error
        most = max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
        if most >= words or words <= EMPTY:
            raise CheckpointError(
                f"{path} has word {most}, the weights' embedding has rows for 0 to {words - 1} and needs "
                f"{EMPTY}; {MEND}"
            )
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._longest = longest

    def encode(self, instruction: str) -> list[int]:
        """Return the ids of the whole prompt, from the beginning's to the empty word.

        Raises:
            InstructionError: it has no letter or digit, is too long, or has a word that ends a text.
        """
        if not any(letter.isalnum() for letter in instruction):
            raise InstructionError(
                f"the instruction {instruction!r:.80} has no words; say for example 'pick up the bowl'"
            )
        ids = self._ids(PROMPT.format(instruction.lower()))
        if BEGIN in ids or STOP in ids:
            raise InstructionError(
                f"the instruction {instruction!r:.80} has a sign that begins or ends a text (<s>, </s>); leave it out"
            )
        ids = [BEGIN, *ids, *([] if ids[-1] == EMPTY else [EMPTY])]
        if len(ids) > self._longest:
            raise InstructionError(
                f"the instruction {instruction!r:.80} makes a prompt of {len(ids)} tokens, this policy reads "
                f"{self._longest}; shorten it"
            )
        return ids

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids
