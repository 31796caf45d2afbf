"""What an interrupted distillation leaves, so that the next one goes on behind the last stage that was finished.

Two files in the DySL folder, in full precision; they belong to one set of settings and data and are ignored (and
replaced) under any other. The stages draw from random streams of their own, so that going on gives the same bits as
never having stopped.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from dysl_vla_ros.errors import CheckpointError
from dysl_vla_ros.files import sha256, written_together
from dysl_vla_ros.policies.checkpoint import fill_tensors, read_tensors
from dysl_vla_ros.policies.weights_header import load_exactly

WEIGHTS, STATE = "unfinished.safetensors", "unfinished.json"


class Resume:
    """The state of one distillation on disk.

    Attributes:
        records: what each finished stage reported (plain values), first to last.
    """

    def __init__(self, folder: Path, settings: Any, targets: Tensor) -> None:
        """Look for the state that belongs to these settings (plain values) and the teacher's actions (N, H, A)."""
        self._weights, self._state = folder / WEIGHTS, folder / STATE
        text = json.dumps(settings, sort_keys=True).encode() + targets.cpu().numpy().tobytes()
        self._belongs_to = hashlib.sha256(text).hexdigest()
        self.records: list[dict[str, Any]] = []
        try:
            state = json.loads(self._state.read_text(encoding="utf-8"))
            if state["belongs_to"] == self._belongs_to and sha256(self._weights) == state["sha256"]:
                self.records = [dict(record) for record in state["records"]]
        except (OSError, ValueError, KeyError, TypeError):
            pass  # nothing that could be gone on with: every stage runs

    def load(self, modules: nn.Module) -> None:
        """Put back what the last finished stage left, if there is one; what cannot be read is trained again."""
        if not self.records:
            return
        try:
            load_exactly(modules, read_tensors(self._weights), self._weights)
        except CheckpointError:
            self.records = []

    def save(self, modules: nn.Module, record: dict[str, Any]) -> None:
        """Keep what a stage has left, and what it reported."""
        self.records.append(record)
        tensors = {name: value.detach().cpu().contiguous() for name, value in modules.state_dict().items()}
        with written_together() as files:
            digest = sha256(files.add(self._weights, fill_tensors(tensors)))
            state = {"belongs_to": self._belongs_to, "sha256": digest, "records": self.records}
            files.add_json(self._state, state)

    def remove(self) -> None:
        """Forget it: the folder is finished."""
        for path in (self._state, self._weights):
            path.unlink(missing_ok=True)
