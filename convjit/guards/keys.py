"""Keys of signatures (`guard.read_arguments`), read again: what differs between two of them."""

from __future__ import annotations

import struct
from typing import Any, cast

import mlx.nn as nn


def difference(before: Any, now: Any) -> str:
    """The first parts of two keys that differ, in words: numbers, shapes, dtypes, objects."""
    parts, others = _parts(before), _parts(now)
    if parts and len(parts) == len(others):
        differing = [(a, b) for a, b in zip(parts, others, strict=True) if a != b]
        return difference(*differing[0]) if differing else f"{before} is not {now}"
    if _is_identity(now):
        return f"another object of type {now[0].__name__}; a dict or a named tuple of its arrays may be new each time"
    return f"{_number(before)} became {_number(now)}"


def without_identities(key: Any) -> Any:
    """The key without saying which objects other than modules its arguments are."""
    if _is_identity(key):
        return key[0]
    return tuple(map(without_identities, _parts(key))) or key


def _parts(key: Any) -> tuple[Any, ...]:
    """Those of a key that is neither a shape nor an object."""
    if not isinstance(key, tuple) or _is_identity(key):
        return ()
    parts = cast(tuple[Any, ...], key)
    return () if all(type(part) is int for part in parts) else parts


def _is_identity(key: Any) -> bool:
    """Is it (type, id) of an object with state that is no module?"""
    if not (isinstance(key, tuple) and len(cast(tuple[Any, ...], key)) == 2 and type(key[1]) is int):
        return False
    return isinstance(key[0], type) and not issubclass(key[0], (int, nn.Module))


def _number(key: Any) -> Any:
    """A float is in a key as its bytes."""
    return struct.unpack("<d", key)[0] if isinstance(key, bytes) and len(key) == 8 else key
