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
        state: all that was found, {} where nothing fits.
    """

    def __init__(self, folder: Path, settings: Any, targets: Tensor) -> None:
        """Look for the state that belongs to these settings (plain values) and the teacher's actions (N, H, A).

        ``targets`` may be any tensor that tells the data from other data.
        """
        self._weights, self._state = folder / WEIGHTS, folder / STATE
        text = json.dumps(settings, sort_keys=True).encode() + targets.cpu().numpy().tobytes()
        self._belongs_to = hashlib.sha256(text).hexdigest()
        self.records: list[dict[str, Any]] = []
        self.state: dict[str, Any] = {}
        try:
            state = json.loads(self._state.read_text(encoding="utf-8"))
            if state["belongs_to"] == self._belongs_to and sha256(self._weights) == state["sha256"]:
                self.records, self.state = [dict(record) for record in state["records"]], state
        except (OSError, ValueError, KeyError, TypeError):
            pass  # nothing that could be gone on with: every stage runs

    def load(self, modules: nn.Module) -> None:
        """Put back what the last finished stage left, if there is one; what cannot be read is trained again."""
        if not self.state:
            return
        try:
            load_exactly(modules, self.restored(read_tensors(self._weights)), self._weights)
        except CheckpointError:
            self.records, self.state = [], {}

    def restored(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return of the file's tensors those of the modules: all.

        Copies, as new modules lie in memory: products of mapped bytes, aligned otherwise, have other last bits.
        """
        return {name: value.clone() for name, value in tensors.items()}

    def save(self, modules: nn.Module, record: dict[str, Any]) -> None:
        """Keep what a stage has left, and what it reported."""
        self.records.append(record)
        self.write(modules, {}, {})

    def write(self, modules: nn.Module, within: dict[str, Any], more: dict[str, Tensor]) -> None:
        """Write the modules, and where and with what tensors a stage was interrupted; {}: between two stages."""
        tensors = {name: value.detach().cpu().contiguous() for name, value in modules.state_dict().items()}
        with written_together() as files:
            digest = sha256(files.add(self._weights, fill_tensors(tensors | more)))
            state = {"belongs_to": self._belongs_to, "sha256": digest, "records": self.records}
            files.add_json(self._state, state | ({"within": within} if within else {}))

    def remove(self) -> None:
        """Forget it: the folder is finished."""
        for path in (self._state, self._weights):
            path.unlink(missing_ok=True)
