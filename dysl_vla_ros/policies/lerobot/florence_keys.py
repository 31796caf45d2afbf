"""Names of tensors in X-VLA's files: of Florence-2 as it was published, or as transformers has it."""

from typing import Any

PREFIX = "model.vlm.language_model."
TIED = (f"{PREFIX}shared.weight", f"{PREFIX}encoder.embed_tokens.weight")  # one tensor, of which a file has either name
UNUSED = (f"{PREFIX}final_logits_bias",)  # of the text decoder, which X-VLA has not


def renamed(tensors: dict[str, Any]) -> dict[str, Any]:
    """Return a file's tensors by the names under which the library's loader takes them."""
    from lerobot.policies.xvla import modeling_xvla

    if modeling_xvla._is_vendored_florence_state_dict(tensors):
        tensors = modeling_xvla._remap_vendored_florence_state_dict(tensors)
    there = [name for name in TIED if name in tensors]
    return tensors | {name: tensors[there[0]] for name in TIED if there and name not in tensors}
