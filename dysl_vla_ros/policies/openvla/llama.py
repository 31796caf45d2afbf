"""Of the language model in ``config.json`` what it says of its sizes and its arithmetic. Imports no torch."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dysl_vla_ros.errors import CheckpointError
from dysl_vla_ros.json_files import build_from
from dysl_vla_ros.policies.checkpoint import MEND

LARGEST_SIZE = 65536


@dataclass(frozen=True)
class LlamaSizes:
    """Of the language model what ``text_config`` says; what it does not say is Llama 2 7B's, as in training."""

    vocab_size: int = 32000
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int | None = None
    max_position_embeddings: int = 2048
    rms_norm_eps: float | int = 1e-6
    rope_theta: float | int = 10000.0
    hidden_act: str = "silu"
    attention_bias: bool = False
    mlp_bias: bool = False

    def faults(self) -> list[str]:
        """Return which sizes no model has."""
        whole = {name: value for name, value in asdict(self).items() if type(value) is int}
        faults = [f"{name} is {value}" for name, value in whole.items() if not 1 <= value <= LARGEST_SIZE]
        positive = {"rms_norm_eps": self.rms_norm_eps, "rope_theta": self.rope_theta}
        faults += [f"{name} is {value}" for name, value in positive.items() if not 0.0 < value < 1e12]
        if not faults and self.num_attention_heads % (self.num_key_value_heads or 1):
            faults.append(f"num_key_value_heads is {self.num_key_value_heads} of {self.num_attention_heads} heads")
        if not faults and self.hidden_size % (2 * self.num_attention_heads):
            faults.append(
                f"hidden_size is {self.hidden_size}, no even number for each of {self.num_attention_heads} heads"
            )
        if self.hidden_act != "silu":
            faults.append(f"hidden_act is {self.hidden_act!r:.40}, expected silu")
        faults += [f"{name} is true, expected false" for name in ("attention_bias", "mlp_bias") if getattr(self, name)]
        return faults

    @property
    def arguments(self) -> dict[str, Any]:
        """What transformers' configuration is made with."""
        theta = float(self.rope_theta)
        own = {name: value for name, value in asdict(self).items() if name != "rope_theta"}
        return own | {
            "num_key_value_heads": self.num_key_value_heads or self.num_attention_heads,
            "rms_norm_eps": float(self.rms_norm_eps),
            "rope_parameters": {"rope_type": "default", "rope_theta": theta},
        }


def llama_sizes(text: Mapping[str, Any], source: Path) -> LlamaSizes:
    """Return the language model's sizes; what would change its arithmetic and is not known here is refused.

    Raises:
        CheckpointError: names the key.
    """
    rotary = text.get("rope_parameters") or {}  # as newer transformers write it
    kind = rotary.get("rope_type", "default") if isinstance(rotary, dict) else rotary
    odd = {
        name: value
        for name, value, plain in (
            ("model_type", text.get("model_type", "llama"), "llama"),
            ("rope_scaling", text.get("rope_scaling"), None),
            ("rope_parameters.rope_type", kind, "default"),
        )
        if value != plain
    }
    if odd:
        said = ", ".join(f"{name} {value!r:.40}" for name, value in odd.items())
        raise CheckpointError(f"{source}: text_config has {said}; this version runs plain Llama alone")
    values = {**text, **({"rope_theta": rotary["rope_theta"]} if "rope_theta" in rotary else {})}
    llama: LlamaSizes = build_from(LlamaSizes, values, "text_config", source, MEND, lenient=True)
    faults = llama.faults()
    if not faults and text.get("head_dim") not in (None, llama.hidden_size // llama.num_attention_heads):
        faults.append(f"head_dim is {text['head_dim']}, no {llama.num_attention_heads}th of hidden_size")
    if faults:
        raise CheckpointError(f"{source}: text_config: {'; '.join(faults)}; {MEND}")
    return llama
