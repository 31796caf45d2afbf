"""What a policy says of an instruction that it cannot read."""

import functools
from collections.abc import Callable
from typing import Any

from dysl_vla_ros.errors import InstructionError
from dysl_vla_ros.readings import instruction_fault


def instruction_judge(policy: Any) -> Callable[[str], str]:
    """Return a function that says why ``policy`` cannot read an instruction, in its own words; "" where it can.

    Args:
        policy: a :class:`~dysl_vla_ros.policies.interface.VlaPolicy`.
    """

    @functools.cache
    def judge(text: str) -> str:
        if fault := instruction_fault(text):
            return fault
        try:
            policy.check_instruction(text)
        except InstructionError as error:
            return str(error)
        return ""

    return judge
