"""Dataclasses from plain values (msgpack, JSON), strictly by their type hints: nothing is guessed or left out.

Unknown and missing fields, wrong types and arrays of another dtype are refused with the place of the value: what a file
or another process says is checked once, where it comes in. Standard library and numpy alone, so that the policy
worker's Python needs nothing more.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any

import numpy as np

from dysl_vla_ros.errors import DyslVlaError

DTYPES = {"float32": np.float32, "uint8": np.uint8}
LARGEST_WHOLE = 1 << 1000  # that is also a float


class WrongValueError(DyslVlaError):
    """A value is not of the type that its place wants; the message begins with the place."""


def build(wanted: Any, value: Any, where: str, *, lenient: bool = False) -> Any:
    """Return ``value`` as a ``wanted``.

    Args:
        wanted: a type hint: dataclass, tuple, Mapping, array, union of plain types, plain type, Any.
        value: plain: None, bool, int, float, str, bytes, list, dict.
        where: names it in errors, a field's name or an index put behind it; "": the whole.
        lenient: of dataclasses, fields that have a default may be missing, and unknown ones are left aside.

    Raises:
        WrongValueError: it is of another type; says which one is expected.
    """
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if wanted is Any:
        return value
    if dataclasses.is_dataclass(wanted) and isinstance(wanted, type):
        return _dataclass(wanted, value, where, lenient)
    if origin is np.ndarray:
        return _array(np.dtype(typing.get_args(arguments[1])[0]), value, where)
    if origin is tuple and isinstance(value, list):
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
        if len(kinds) == len(value):
            pairs = enumerate(zip(kinds, value, strict=True))
            return tuple(build(kind, item, f"{where}[{index}]", lenient=lenient) for index, (kind, item) in pairs)
    if origin in (Mapping, dict) and isinstance(value, dict):
        key_kind, kind = arguments
        return {
            build(key_kind, key, where): build(kind, item, _place(where, key), lenient=lenient)
            for key, item in value.items()
        }
    if origin in (Mapping, dict, tuple):
        raise WrongValueError(f"{where} must be {_named(wanted)}, not {_shown(value)}")
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        plain = [kind for kind in arguments if kind in (bool, int, float, str)]
        if plain:
            if type(value) in plain:
                return value
            raise WrongValueError(f"{where} must be {_named(wanted)}, not {_shown(value)}")
        return build(next(kind for kind in arguments if kind is not type(None)), value, where, lenient=lenient)
    if wanted is float and type(value) is int and abs(value) <= LARGEST_WHOLE:
        return float(value)
    if type(value) is not wanted:
        raise WrongValueError(f"{where} must be {_named(wanted)}, not {_shown(value)}")
    return value


def _dataclass(wanted: Any, value: Any, where: str, lenient: bool) -> Any:
    hints = _hints(wanted)
    defaults = {field.name for field in dataclasses.fields(wanted) if _has_default(field)} if lenient else set()
    missing = not isinstance(value, dict) or hints.keys() - defaults - value.keys()
    if missing or not lenient and value.keys() - hints.keys():
        fields = f"{where or 'the whole'} must have the fields {', '.join(hints)}"
        raise WrongValueError(f"{fields}{_difference(value, hints)}")
    given = {name: hint for name, hint in hints.items() if name in value}
    return wanted(
        **{name: build(hint, value[name], _place(where, name), lenient=lenient) for name, hint in given.items()}
    )


def _has_default(field: "dataclasses.Field[Any]") -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def _place(where: str, name: object) -> str:
    return f"{where}.{name}" if where else str(name)


def _named(wanted: Any) -> str:
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if origin is tuple:
        kinds = arguments[:1] if arguments[-1] is Ellipsis else arguments
        return f"a list of {', '.join(map(_named, kinds))}"
    if origin in (Mapping, dict):
        return f"a map to {_named(arguments[1])}"
    return str(getattr(wanted, "__name__", wanted)) if origin is None else str(wanted)


def _difference(value: Any, hints: Mapping[str, Any]) -> str:
    if not isinstance(value, dict):
        return f", not {_shown(value)}"
    missing = ", ".join(name for name in hints if name not in value)
    unknown = ", ".join(str(name) for name in value if name not in hints)
    return f"; missing: {missing}" * bool(missing) + f"; unknown: {unknown:.80}" * bool(unknown)


def _array(dtype: "np.dtype[Any]", value: Any, where: str) -> "np.ndarray[Any, Any]":
    if not isinstance(value, dict) or set(value) != {"shape", "dtype", "bytes"} or not _is_dtype(value["dtype"]):
        raise WrongValueError(f"{where} must be an array of {dtype}, not {_shown(value)}")
    shape, data = value["shape"], value["bytes"]
    if value["dtype"] != dtype.name:
        raise WrongValueError(f"{where} must be an array of {dtype}, not of {value['dtype']}")
    sizes = isinstance(shape, list) and len(shape) <= 8 and all(type(size) is int and size >= 0 for size in shape)
    if not sizes or not isinstance(data, bytes) or math.prod(shape) * dtype.itemsize != len(data):
        raise WrongValueError(f"{where} has shape {_shown(shape)}, which does not go with its bytes")
    return np.frombuffer(bytearray(data), dtype=dtype).reshape(shape)  # a bytearray: the array can be written to


def _is_dtype(value: Any) -> bool:
    return isinstance(value, str) and value in DTYPES


def _hints(kind: type[Any]) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
