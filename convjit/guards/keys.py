"""Keys of signatures (`guard.read_arguments`), read again: what differs between two of them."""

from __future__ import annotations

import struct
from typing import Any, cast

import mlx.nn as nn


def difference(before: Any, now: Any) -> str:
    """What became of the first part of two keys that differs: of a number, a shape, a dtype, an object."""
    if not isinstance(before, tuple) or not isinstance(now, tuple) or (_is_shape(before) and _is_shape(now)):
        return f"{before} became {now}"
    first, second = cast(tuple[tuple[Any, ...], tuple[Any, ...]], (before, now))
    if _is_identity(second):
        return f"another object of type {second[0].__name__}; a dict or a data class of its arrays may be new each time"
    if _is_value(first) and _is_value(second):
        shown, other = _shown(*first), _shown(*second)
        return f"{shown} became {other if shown != other else 'another one'}"
    if len(first) != len(second):
        return "it has other parts"
    differing = ((a, b) for a, b in zip(first, second, strict=True) if (a,) != (b,))
    return difference(*next(differing))


def without_identities(key: Any) -> Any:
    """The key without saying which objects other than modules its arguments are."""
    if not isinstance(key, tuple):
        return key
    parts = cast(tuple[Any, ...], key)
    return parts[0] if _is_identity(parts) else tuple(map(without_identities, parts))


def _is_shape(key: tuple[Any, ...]) -> bool:
    return all(type(part) is int for part in key)


def _is_value(key: tuple[Any, ...]) -> bool:
    """Is this the key of what has no parts: its type, and its bits?"""
    return len(key) == 2 and isinstance(key[0], type) and not isinstance(key[1], tuple)


def _is_identity(key: tuple[Any, ...]) -> bool:
    """Is it (type, id) of an object with state that is no module?"""
    return _is_value(key) and type(key[1]) is int and not issubclass(key[0], (int, nn.Module))


def _shown(cls: type, bits: Any) -> str:
    if issubclass(cls, float):
        return str(struct.unpack("<d", bits)[0])
    return str(bits) if bits is None or issubclass(cls, (int, str)) else f"one {cls.__name__}"
