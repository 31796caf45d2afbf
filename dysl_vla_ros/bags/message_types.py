"""What the messages of a bag mean: definitions from the bag itself, else from this package, rosbags, or ROS's folders.

A definition is data, but it is turned into Python classes by rosbags, so that only what parses as one comes that far.
"""

import os
import re
from functools import cache
from pathlib import Path
from typing import Any

from rosbags.interfaces import Nodetype
from rosbags.interfaces.typing import Typesdict
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, TypesysError, get_types_from_idl, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from dysl_vla_ros.bags.storage import Definition
from dysl_vla_ros.errors import BagError

TYPE_NAME = re.compile(r"[A-Za-z]\w*/msg/[A-Za-z]\w*", re.ASCII)
SEPARATOR = "=" * 80
MAX_DEFINITION = 1 << 20  # characters


class MessageTypes:
    """Deserialises the messages of one bag.

    Args:
        definitions: type -> the bag's own definition, None where it has none.
    """

    def __init__(self, definitions: dict[str, Definition | None]) -> None:
        """Resolve every type; :attr:`faults` says of each that cannot be resolved why."""
        self.faults: dict[str, str] = {}
        self._stores: dict[str, Typestore] = {}
        for name, definition in definitions.items():
            if TYPE_NAME.fullmatch(name) is None:
                self.faults[name] = f"{name!r:.80} is not the name of a message type"
                continue
            try:
                self._stores[name] = _store_of(name, definition) if definition else known_store(name)
            except _UNPARSED as error:
                reason = " ".join(str(error).split())
                self.faults[name] = f"the definition of {name} cannot be used: {reason:.160}"

    def deserialise(self, kind: str, raw: bytes) -> Any:
        """Turn CDR bytes into an object with the message's fields.

        Raises:
            BagError: the type is unknown, or the bytes are not a message of it.
        """
        if kind in self.faults:
            raise BagError(self.faults[kind])
        try:
            return self._stores[kind].deserialize_cdr(raw, kind)
        except _UNREADABLE as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise BagError(f"{len(raw)} bytes are no {kind}: {reason:.160}") from error


# What rosbags raises for definitions that are damaged: its parsers check little by themselves.
_UNPARSED = (TypesysError, ValueError, KeyError, IndexError, TypeError, SyntaxError, AssertionError, RecursionError)
# And for bytes that are damaged.
_UNREADABLE = (SerdeError, ValueError, KeyError, IndexError, TypeError, AssertionError, OverflowError, MemoryError)


def known_store(name: str) -> Typestore:
    """Make a store that holds ``name`` and all that it refers to, without a bag's help.

    Raises:
        ValueError: the definition is not to be found.
    """
    store = get_typestore(Stores.EMPTY)
    _complete(store, name)
    return store


def _store_of(name: str, definition: Definition) -> Typestore:
    """Make a store of the bag's own definition; types that it refers to and does not hold are looked for here."""
    if len(definition.text) > MAX_DEFINITION:
        raise ValueError(f"it has {len(definition.text)} characters")
    store = get_typestore(Stores.EMPTY)
    types: Typesdict = {}
    if definition.encoding == "ros2msg":
        types = get_types_from_msg(definition.text, name)
    else:
        for part in definition.text.split(SEPARATOR):
            if part.strip():
                types.update(get_types_from_idl(re.sub(r"\A\s*IDL: .*\n", "", part)))
    if name not in types:
        raise ValueError("it defines other types only")
    store.register(types)
    _complete(store, name)
    return store


def _complete(store: Typestore, name: str) -> None:
    """Add ``name`` and all that it refers to, where the store lacks them."""
    open_ends, seen = [name], set()
    while open_ends:
        current = open_ends.pop()
        if current in seen:
            continue
        seen.add(current)
        if current not in store.fielddefs:
            store.register(_known_definition(current))
        for _, (kind, content) in store.fielddefs[current][1]:
            element = content[0] if kind in (Nodetype.ARRAY, Nodetype.SEQUENCE) else (kind, content)
            if element[0] == Nodetype.NAME:
                open_ends.append(str(element[1]))


def _known_definition(name: str) -> Typesdict:
    """Find one type: this package's own, one that rosbags ships, or one that is installed with ROS."""
    package, _, short = name.split("/")
    own = [folder / f"{short}.msg" for folder in _own_folders()] if package == "dysl_vla_ros" else []
    for path in own:
        if path.is_file():
            return get_types_from_msg(path.read_text(encoding="utf-8"), name)
    shipped = _shipped().fielddefs
    if name in shipped:
        return {name: shipped[name]}
    for prefix in filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)):
        path = Path(prefix) / "share" / package / "msg" / f"{short}.msg"
        if path.is_file():
            return get_types_from_msg(path.read_text(encoding="utf-8"), name)
    raise ValueError(f"neither the bag nor this machine has a definition of {name}")


@cache
def _shipped() -> Typestore:
    return get_typestore(Stores.ROS2_KILTED)


@cache
def _own_folders() -> list[Path]:
    """Return where this package's .msg files may be: below the prefix that it is installed in, or in the checkout."""
    here = Path(__file__).absolute()
    return [parent / "share" / "dysl_vla_ros" / "msg" for parent in here.parents] + [here.resolve().parents[2] / "msg"]
