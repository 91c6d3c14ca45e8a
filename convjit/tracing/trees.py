"""Nested lists, tuples, dicts and objects of arrays: taken apart and put together again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Any

import mlx.core as mx

from convjit.errors import TraceError
from convjit.guards.state import PLAIN, attributes_of, can_be_made, is_record, is_state, is_uncopied


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


_DICTS = (dict, OrderedDict)


def flatten(tree: Any, was_there: Callable[[Any], bool]) -> tuple[list[mx.array], Spec]:
    """The arrays of a result, and its structure.

    Args:
        tree: the result.
        was_there: is this object one that the function found outside, rather than made?

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
        if isinstance(tree, PLAIN):
            return Spec(tree)
        if can_be_made(tree) and (is_dataclass(type(tree)) or is_uncopied(tree)) and not was_there(tree):
            attributes = attributes_of(tree)
            return Spec(type(tree), tuple(map(visit, attributes.values())), tuple(attributes))
        raise TraceError(
            f"it returns an object of type {type(tree).__name__}; return arrays in lists, tuples, dicts or data classes"
        )

    return arrays, visit(tree)


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
    return object_of(spec.example, dict(zip(spec.keys, children, strict=True)))


def object_of(cls: type, attributes: dict[str, Any]) -> Any:
    """A new object with these attributes."""
    made = cls.__new__(cls)  # pyright: ignore[reportCallIssue]
    for name, value in attributes.items():
        object.__setattr__(made, name, value)
    return made


def like(sequence: list[Any] | tuple[Any, ...], items: list[Any]) -> Any:
    """A list, tuple or named tuple of the same type with other items."""
    return _make(type(sequence), items)


def _make(type_: type, items: list[Any]) -> Any:
    return type_(*items) if hasattr(type_, "_fields") else type_(items)


def replaced(value: Any, array: Callable[[mx.array], mx.array], state: Callable[[Any], Any]) -> Any:
    """An argument of a call with other arrays and objects in it: what `array` and `state` give for its own."""
    if isinstance(value, mx.array):
        return array(value)
    if is_state(value):
        return state(value)
    if isinstance(value, dict):
        return {key: replaced(item, array, state) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return like(value, [replaced(item, array, state) for item in value])
    if is_record(value):
        return object_of(type(value), replaced(attributes_of(value), array, state))
    return value
