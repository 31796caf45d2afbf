"""A library's module with some parts of its own replaced, for one caller: the library's own object stays as it is."""

from typing import Any

from torch import nn


def view(module: Any, **replaced: Any) -> Any:
    """Return a shallow copy of a module, all weights shared, with some children, attributes or methods replaced.

    Args:
        module: the library's; it is not changed.
        replaced: name -> what stands there in the copy alone.
    """
    copy = object.__new__(type(module))
    copy.__dict__ = dict(module.__dict__)
    copy._modules = dict(module._modules)
    for name, other in replaced.items():
        copy._modules.pop(name, None)
        copy.__dict__.pop(name, None)
        (copy._modules if isinstance(other, nn.Module) else copy.__dict__)[name] = other
    return copy
