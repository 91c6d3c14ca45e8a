"""Nested lists, tuples, dicts and objects of arrays: taken apart and put together again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from types import SimpleNamespace
from typing import Any

import mlx.core as mx

from convjit.errors import TraceError
from convjit.guards.state import CONTAINERS, is_object, is_uncopied, slot_names


@dataclass(frozen=True, slots=True)
class Spec:
    """The structure of a result: a container or an object with children, an array, or a plain value.

    Attributes:
        example: the type of a container or an object, `mx.array` for an array, else the value itself.
        children: the children's structures.
        keys: a dict's keys; the names of an object's attributes.
    """

    example: Any
    children: tuple[Spec, ...] = ()
    keys: tuple[Any, ...] = ()


_VALUES = (type(None), bool, int, float, complex, str, bytes, mx.Dtype)
_DICTS = (dict, OrderedDict)


def flatten(tree: Any, is_state: Callable[[Any], bool]) -> tuple[list[mx.array], Spec]:
    """The arrays of a result, and its structure.

    Args:
        tree: the result.
        is_state: is this object one that the function found outside, rather than made?

    Raises:
        TraceError: if the result holds something that is neither an array, a container, a new object of a class of the
            user's, nor a plain value.
    """
    arrays: list[mx.array] = []

    def visit(tree: Any) -> Spec:
        if isinstance(tree, mx.array):
            arrays.append(tree)
            return Spec(mx.array)
        if type(tree) in _DICTS:
            return Spec(type(tree), tuple(map(visit, tree.values())), tuple(tree))
        if type(tree) in (list, tuple) or (isinstance(tree, tuple) and hasattr(tree, "_fields")):
            return Spec(type(tree), tuple(map(visit, tree)))
        if isinstance(tree, _VALUES):
            return Spec(tree)
        if _is_record(tree) and not is_state(tree):
            attributes = _attributes(tree)
            return Spec(type(tree), tuple(map(visit, attributes.values())), tuple(attributes))
        raise TraceError(
            f"it returns an object of type {type(tree).__name__}; return arrays in lists, tuples, dicts or data classes"
        )

    return arrays, visit(tree)


def _is_record(value: Any) -> bool:
    cls = type(value)
    if isinstance(value, (*CONTAINERS, type)) or cls.__new__ not in (object.__new__, SimpleNamespace.__new__):
        return False
    if not is_dataclass(cls):
        return is_object(value) and is_uncopied(value)
    return {*slot_names(cls)} <= {"__dict__", "__weakref__", *(field.name for field in fields(cls))}


def _attributes(value: Any) -> dict[str, Any]:
    found = (
        {f.name: getattr(value, f.name) for f in fields(value) if hasattr(value, f.name)} if is_dataclass(value) else {}
    )
    return {**found, **getattr(value, "__dict__", {})}


def unflatten(spec: Spec, arrays: Sequence[mx.array]) -> Any:
    """The inverse of `flatten`."""
    return _unflatten(spec, iter(arrays))


def _unflatten(spec: Spec, arrays: Iterator[mx.array]) -> Any:
    if spec.example is mx.array:
        return next(arrays)
    if not isinstance(spec.example, type):
        return spec.example
    children = [_unflatten(child, arrays) for child in spec.children]
    if spec.example in _DICTS:
        return spec.example(zip(spec.keys, children, strict=True))
    if issubclass(spec.example, (list, tuple)):
        return _make(spec.example, children)
    made = spec.example.__new__(spec.example)  # pyright: ignore[reportCallIssue]
    for name, value in zip(spec.keys, children, strict=True):
        object.__setattr__(made, name, value)
    return made


def like(sequence: list[Any] | tuple[Any, ...], items: list[Any]) -> Any:
    """A list, tuple or named tuple of the same type with other items."""
    return _make(type(sequence), items)


def _make(type_: type, items: list[Any]) -> Any:
    return type_(*items) if hasattr(type_, "_fields") else type_(items)
