"""Nested lists, tuples and dicts of arrays: taken apart and put together again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from convjit.errors import TraceError


@dataclass(frozen=True, slots=True)
class Spec:
    """The structure of a result: a container with children, an array, or a plain value.

    Attributes:
        example: an empty container of the right type, `mx.array` for an array, else the value itself.
        children: the children's structures.
        keys: a dict's keys.
    """

    example: Any
    children: tuple[Spec, ...] = ()
    keys: tuple[Any, ...] = ()


_VALUES = (type(None), bool, int, float, complex, str, bytes, mx.Dtype)


def flatten(tree: Any) -> tuple[list[mx.array], Spec]:
    """The arrays of a result, and its structure.

    Raises:
        TraceError: if the result holds something that is neither an array, a container nor a plain value.
    """
    arrays: list[mx.array] = []
    return arrays, _flatten(tree, arrays)


def _flatten(tree: Any, arrays: list[mx.array]) -> Spec:
    if isinstance(tree, mx.array):
        arrays.append(tree)
        return Spec(mx.array)
    if type(tree) is dict:
        return Spec({}, tuple(_flatten(v, arrays) for v in tree.values()), tuple(tree))
    if type(tree) in (list, tuple) or (isinstance(tree, tuple) and hasattr(tree, "_fields")):
        return Spec(type(tree), tuple(_flatten(v, arrays) for v in tree))
    if isinstance(tree, _VALUES):
        return Spec(tree)
    raise TraceError(f"it returns an object of type {type(tree).__name__}; return arrays in lists, tuples or dicts")


def unflatten(spec: Spec, arrays: Sequence[mx.array]) -> Any:
    """The inverse of `flatten`."""
    return _unflatten(spec, iter(arrays))


def _unflatten(spec: Spec, arrays: Iterator[mx.array]) -> Any:
    if spec.example is mx.array:
        return next(arrays)
    if isinstance(spec.example, dict):
        return {key: _unflatten(child, arrays) for key, child in zip(spec.keys, spec.children, strict=True)}
    if isinstance(spec.example, type):
        return _make(spec.example, [_unflatten(child, arrays) for child in spec.children])
    return spec.example


def like(sequence: list[Any] | tuple[Any, ...], items: list[Any]) -> Any:
    """A list, tuple or named tuple of the same type with other items."""
    return _make(type(sequence), items)


def _make(type_: type, items: list[Any]) -> Any:
    return type_(*items) if hasattr(type_, "_fields") else type_(items)
