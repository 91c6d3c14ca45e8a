"""What counts as state of the user's: values that hold arrays, and how deep to look for them."""

from __future__ import annotations

import functools
import sys
import types
import weakref
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, fields, is_dataclass
from operator import is_
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from convjit.guards.bindings import cells

CONTAINERS = (dict, list, tuple)

_TRANSFORMED = type(mx.grad(lambda x: x))
_CACHED: type = type(functools.lru_cache(lambda: None))
OPAQUE: tuple[type, ...] = (_TRANSFORMED, mx.custom_function, _CACHED)
"""Callables that keep a Python function where it cannot be exchanged for a copy: mx.grad, mx.compile and the like.
They forward `__class__` to it, so that `isinstance` takes them for functions."""

_VALUE_AND_GRAD: types.CodeType = getattr(nn.value_and_grad(nn.Module(), lambda: None), "__code__")  # noqa: B009
"""The code of every function that `nn.value_and_grad` returns."""

PLAIN = (type(None), bool, int, float, complex, str, bytes, mx.Dtype)
"""What results and data classes may hold besides arrays."""

_VALUES = (bool, int, float, complex, str, bytes, type, types.ModuleType)

_LIBRARIES = {*sys.stdlib_module_names, "mlx", "numpy", "convjit"}
"""Packages whose functions and classes hold no state of the user's."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A place that holds an array: `container[key]`, at `path` from the user's point of view."""

    container: Any
    key: Any
    path: str

    def get(self) -> mx.array:
        return self.container[self.key]


class Elements(tuple[Any, ...]):
    """What a deque holds. Equal to it while these are the same objects: equal ones may differ, such as 0.0 and -0.0."""

    __hash__ = tuple[Any, ...].__hash__

    def __eq__(self, other: Any) -> bool:
        return len(self) == len(other) and all(map(is_, self, other))


def child_path(path: str | None, key: Any) -> str:
    """The path of what a container at `path` holds under `key`; the outermost container has the path ""."""
    return f"{path}.{key}" if path else str(key)


def unwrap(function: Any) -> Any:
    """The function behind the wrappers of `convjit.compile`."""
    while hasattr(type(function), "__convjit_plain__"):
        function = function.__convjit_plain__
    return function


def is_function(value: object) -> bool:
    """Is `value` a function, or something around one, that may hold state of the user's?"""
    plain = unwrap(value)
    if type(plain) is types.FunctionType:
        return bool(plain.__closure__) or not is_library(plain.__module__)
    return plain is not value or isinstance(plain, (types.MethodType, functools.partial, *OPAQUE))


def value_and_grad_parts(function: types.FunctionType) -> tuple[Any, Any] | None:
    """The model and the function of `nn.value_and_grad(model, function)`, if that made this one."""
    if function.__code__ is not _VALUE_AND_GRAD:
        return None
    return next(content for name, _, content in cells(function) if name == "model"), vars(function)["__wrapped__"]


def is_object(value: object) -> bool:
    """Is `value` an instance of an ordinary class, with attributes, that Python copies in the ordinary way?"""
    cls = type(value)
    if isinstance(value, (nn.Module, mx.array, type, types.ModuleType, types.FunctionType, *CONTAINERS)):
        return False
    if not hasattr(value, "__dict__") or slot_names(cls) or is_function(value) or hasattr(cls, "__copy__"):
        return False
    ordinary = cls.__reduce_ex__ is object.__reduce_ex__ and cls.__reduce__ is object.__reduce__
    return ordinary or cls is types.SimpleNamespace


def is_state(value: object) -> bool:
    """Is an argument of a call to be followed, rather than compared by value?"""
    if isinstance(value, nn.Module) or is_function(value):
        return True
    if isinstance(value, CONTAINERS) or is_record(value):
        return False
    has_attributes = is_object(value) or bool(slot_names(type(value)))
    return (has_attributes and type(value).__hash__ in (None, object.__hash__)) or holds_state(value)


def holds_state(value: object) -> bool:
    """Is there a module or an array in `value`, a container, an object or a closure, however deep?"""
    seen: set[int] = set()
    found = [unwrap(value)]
    while found:
        item = found.pop()
        if isinstance(item, (nn.Module, mx.array)):
            return True
        if item is not None and not isinstance(item, _VALUES) and id(item) not in seen:
            seen.add(id(item))
            found += map(unwrap, _items(item))
    return False


_followed_records: weakref.WeakSet[type] = weakref.WeakSet()


def is_record(value: object) -> bool:
    """Is `value` a data class of arrays and plain values alone? As an argument it is taken apart, as a dict is."""
    if not is_dataclass(type(value)):
        return False
    found: list[Any] = [value]
    seen: set[int] = set()
    has_arrays = False
    while found:
        item = found.pop()
        if isinstance(item, mx.array):
            has_arrays = True
        elif not isinstance(item, PLAIN):
            if id(item) in seen or not (_is_tree(item) or (can_be_made(item) and is_dataclass(type(item)))):
                return False
            seen.add(id(item))
            found += attributes_of(item).values() if is_dataclass(type(item)) else _items(item)
    return has_arrays


def follow_records(classes: Iterable[type]) -> None:
    """Follow arguments of these classes from now on, as other objects: a function writes into them."""
    _followed_records.update(classes)


def can_be_made(value: object) -> bool:
    """Is an object with the attributes of `value` all that it is?"""
    cls = type(value)
    if isinstance(value, (nn.Module, *CONTAINERS, type)) or cls in _followed_records:
        return False
    if cls.__new__ not in (object.__new__, types.SimpleNamespace.__new__):
        return False
    names = {f.name for f in fields(cls)} if is_dataclass(cls) else set[str]()
    return {*slot_names(cls)} <= {"__dict__", "__weakref__", *names}


def attributes_of(value: Any) -> dict[str, Any]:
    """The attributes of an object that `can_be_made`."""
    names = [field.name for field in fields(value)] if is_dataclass(value) else []
    return {**{n: getattr(value, n) for n in names if hasattr(value, n)}, **getattr(value, "__dict__", {})}


def _is_tree(value: object) -> bool:
    return type(value) in (dict, list, tuple) or (isinstance(value, tuple) and hasattr(value, "_fields"))


def is_followed(value: object) -> bool:
    """Does a walk, and a clone, go on into a value that it finds in a container?"""
    if isinstance(value, (nn.Module, *CONTAINERS)) or is_function(value):
        return True
    return is_uncopied(value) or holds_state(value)


def is_uncopied(value: object) -> bool:
    """Is `value`, if it holds no arrays, a deque or an object of the user's with attributes? A run on copies reaches it
    itself, so that whatever asks if something `is` this object gets the same answer."""
    cls = type(value)
    if isinstance(value, deque):
        return True
    return is_object(value) and (not is_library(cls.__module__) or cls.__name__ in ("SimpleNamespace", "Namespace"))


def _items(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, (list, tuple, deque)):
        return value
    if type(value) is types.FunctionType:
        return [content for _, _, content in cells(value)]
    if isinstance(value, types.MethodType):
        return (value.__self__,)
    if isinstance(value, functools.partial):
        return (value.func, *value.args, *value.keywords.values())
    if is_function(value):
        return ()
    slots = [getattr(value, name) for name in slot_names(type(value)) if hasattr(value, name)]
    return [*vars(value).values(), *slots] if is_object(value) or _is_of_the_user(value) else slots


def _is_of_the_user(value: object) -> bool:
    return hasattr(value, "__dict__") and not is_library(type(value).__module__)


@functools.lru_cache(maxsize=4096)
def slot_names(cls: type) -> tuple[str, ...]:
    """The attributes that classes of the user's keep in `__slots__`."""
    names = (vars(base).get("__slots__", ()) for base in cls.__mro__ if not is_library(base.__module__))
    return tuple(name for given in names for name in ((given,) if isinstance(given, str) else given))


def is_library(module: str | None) -> bool:
    """Is this the name of a module whose functions and classes hold no state of the user's?"""
    return (module or "").partition(".")[0] in _LIBRARIES
