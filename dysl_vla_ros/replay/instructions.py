"""What a policy says of an instruction that it cannot read, without a picture of the recording."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from dysl_vla_ros.errors import ObservationError
from dysl_vla_ros.interfaces import Observation
from dysl_vla_ros.readings import instruction_fault

PICTURE = np.full((64, 64, 3), 127, np.uint8)  # no instruction depends on it


def instruction_judge(policy: Any) -> Callable[[str], str]:
    """Return a function that says why ``policy`` cannot read an instruction, in its own words; "" where it can.

    Args:
        policy: a :class:`~dysl_vla_ros.policies.interface.VlaPolicy`.
    """

    @functools.cache
    def judge(text: str) -> str:
        if fault := instruction_fault(text):
            return fault
        proprioception = np.zeros(len(policy.proprioception.names), np.float32)
        try:
            policy.prepare(Observation(dict.fromkeys(policy.cameras, PICTURE), proprioception, text))
        except ObservationError as error:
            return str(error)
        return ""

    return judge
