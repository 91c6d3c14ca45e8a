"""What a function reads besides its arguments: modules in `__self__`, closures, globals, and all they hold.

`Walk` lists everything a captured program depends on, so that `guard.py` can tell cheaply whether it changed;
`clone` copies the same structure with other arrays in its slots, so that a trace never touches a live object.
"""

from __future__ import annotations

import copy
import functools
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn

_CONTAINERS = (dict, list, tuple)


@dataclass(frozen=True, slots=True)
class Slot:
    """A place that holds an array: `container[key]`, at `path` from the user's point of view."""

    container: Any
    key: Any
    path: str

    def get(self) -> mx.array:
        return self.container[self.key]


def holds_state(value: object) -> bool:
    """Is there a module in `value`, a container or an object with attributes?"""
    if isinstance(value, nn.Module):
        return True
    if isinstance(value, dict):
        return any(map(holds_state, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(holds_state, value))
    return False


def is_stateful_object(value: object) -> bool:
    """Is `value` an object of a user's class whose attributes hold modules or arrays?"""
    if isinstance(value, (nn.Module, mx.array, type, types.ModuleType, *_CONTAINERS)) or callable(value):
        return False
    attributes = getattr(value, "__dict__", None)
    if not isinstance(attributes, dict):
        return False
    return any(isinstance(v, mx.array) or holds_state(v) for v in attributes.values())


def unwrap(function: Any) -> Any:
    """The function behind the wrappers of `convjit.compile`."""
    while hasattr(type(function), "__convjit_plain__"):
        function = function.__convjit_plain__
    return function


def bindings(function: types.FunctionType) -> Iterator[tuple[str, Any, Any]]:
    """The names a function takes from outside: (name, the cell or the globals dict, the value)."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell, cell.cell_contents
        except ValueError:  # a cell that is not filled yet
            continue
    for name in _global_names(function.__code__):
        if name in function.__globals__:
            yield name, function.__globals__, function.__globals__[name]


@functools.lru_cache(maxsize=4096)
def _global_names(code: types.CodeType) -> frozenset[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _global_names(constant)
    return frozenset(names)


class Walk:
    """Everything reachable from a function and its arguments that a captured program depends on.

    Attributes:
        slots: places that hold arrays inside modules and stateful objects.
        captured: bare arrays in closures and globals, by name: they freeze, as in `mx.compile`.
        items: (container, key, value) of everything else: plain attributes, child containers.
        sizes: (container, length), so that a new key is seen.
        names: (cell or globals dict, name, value) of the bindings that were followed.
    """

    def __init__(self) -> None:
        self.slots: list[Slot] = []
        self.captured: list[tuple[str, mx.array]] = []
        self.items: list[tuple[Any, Any, Any]] = []
        self.sizes: list[tuple[Any, int]] = []
        self.names: list[tuple[Any, str, Any]] = []
        self._paths: dict[int, str] = {}
        self._seen: set[int] = set()
        self._alive: list[Any] = []

    def path_of(self, module: object) -> str | None:
        """The path of a module from the user's point of view: "layers.0.conv1", or "" for the outermost one."""
        return self._paths.get(id(module))

    def function(self, function: Any, prefix: str = "") -> Walk:
        """Follow a callable: its `__self__`, partial arguments, closure and globals."""
        function = unwrap(function)
        if isinstance(function, nn.Module) or is_stateful_object(function):
            self.value(function, prefix)
        elif isinstance(function, types.MethodType):
            self.value(function.__self__, prefix)
            self.function(function.__func__, prefix)
        elif isinstance(function, functools.partial):
            self.function(function.func, prefix)
            self._child(function.args, prefix)
            self._child(function.keywords, prefix)
        elif isinstance(function, types.FunctionType) and self._first_visit(function):
            for name, holder, value in bindings(function):
                self._binding(name, holder, value)
        return self

    def _binding(self, name: str, holder: Any, value: Any) -> None:
        if isinstance(value, mx.array):
            self.captured.append((name, value))
            self.names.append((holder, name, value))
        elif holds_state(value) or is_stateful_object(value):
            self.names.append((holder, name, value))
            self.value(value, name)
        elif _is_user_callable(value):
            self.function(value, name)

    def value(self, value: Any, path: str) -> Walk:
        """Follow a module, a container or a stateful object."""
        if isinstance(value, nn.Module):
            if self._first_visit(value):
                self._paths[id(value)] = path
                self._mapping(value, path)
                self._mapping(vars(value), path)
        elif isinstance(value, _CONTAINERS):
            self._child(value, path)
        elif is_stateful_object(value) and self._first_visit(value):
            self._mapping(vars(value), path)
        return self

    def _mapping(self, mapping: dict[Any, Any], path: str) -> None:
        self.sizes.append((mapping, len(mapping)))
        for key, value in mapping.items():
            self._entry(mapping, key, value, f"{path}.{key}" if path else str(key))

    def _child(self, container: Any, path: str) -> None:
        if not self._first_visit(container):
            return
        if isinstance(container, dict):
            self._mapping(container, path)
            return
        if isinstance(container, list):
            self.sizes.append((container, len(container)))
        for index, value in enumerate(container):
            self._entry(container, index, value, f"{path}.{index}" if path else str(index))

    def _entry(self, container: Any, key: Any, value: Any, path: str) -> None:
        if isinstance(value, mx.array):
            self.slots.append(Slot(container, key, path))
            return
        self.items.append((container, key, value))
        if isinstance(value, (nn.Module, *_CONTAINERS)):
            self.value(value, path)
        elif _is_user_callable(value):
            self.function(value, path)

    def _first_visit(self, value: Any) -> bool:
        if id(value) in self._seen:
            return False
        self._seen.add(id(value))
        self._alive.append(value)
        return True


def _is_user_callable(value: Any) -> bool:
    plain = unwrap(value)
    if isinstance(plain, nn.Module):
        return plain is not value
    if isinstance(plain, (types.MethodType, functools.partial)):
        return True
    return isinstance(plain, types.FunctionType) and not (plain.__module__ or "").startswith("mlx.")


class Clone:
    """A structural copy of what a `Walk` sees, with other arrays in the slots and every function rebound to it.

    Args:
        replace: (container, key, array) -> the array to put into the copy.
    """

    def __init__(self, replace: Callable[[Any, Any, mx.array], mx.array]):
        self._replace = replace
        self._copies: dict[int, Any] = {}
        self._originals: dict[int, Any] = {}
        self._alive: list[Any] = []

    def original(self, container: Any) -> Any:
        """The live container that a cloned one was copied from, or None for one that the clone made itself."""
        return self._originals.get(id(container))

    def function(self, function: Any) -> Any:
        """A callable that does the same on the copies; its original is remembered."""
        twin = self._function(function)
        if twin is not function:
            self._keep(function, twin)
        return twin

    def _function(self, function: Any) -> Any:
        function = unwrap(function)
        if isinstance(function, types.MethodType):
            return types.MethodType(self.function(function.__func__), self.value(function.__self__))
        if isinstance(function, functools.partial):
            return functools.partial(
                self.function(function.func), *self.value(function.args), **self.value(function.keywords)
            )
        if isinstance(function, types.FunctionType):
            return self._rebound(function)
        return self.value(function)

    def _rebound(self, function: types.FunctionType) -> types.FunctionType:
        if id(function) in self._copies:
            return self._copies[id(function)]
        if not Walk().function(function).names:
            return function
        twin = types.FunctionType(
            function.__code__,
            dict(function.__globals__),
            function.__name__,
            function.__defaults__,
            tuple(types.CellType() for _ in function.__closure__ or ()),
        )
        twin.__kwdefaults__ = function.__kwdefaults__
        twin.__qualname__ = function.__qualname__
        self._keep(function, twin)
        cells = dict(zip(function.__code__.co_freevars, twin.__closure__ or (), strict=True))
        for name, holder, value in bindings(function):
            new = self.function(value) if _is_user_callable(value) else self.value(value)
            if isinstance(holder, types.CellType):
                cells[name].cell_contents = new
            else:
                twin.__globals__[name] = new
        return twin

    def value(self, value: Any) -> Any:
        """A copy of a module, container or stateful object; anything else is shared."""
        if id(value) in self._copies:
            return self._copies[id(value)]
        if isinstance(value, nn.Module):
            twin = type(value).__new__(type(value))
            self._keep(value, twin)
            self._keep(vars(value), vars(twin))
            for key, item in value.items():
                dict.__setitem__(twin, key, self._item(value, key, item))
            for key, item in vars(value).items():
                vars(twin)[key] = self._item(vars(value), key, item)
            return twin
        if isinstance(value, dict):
            twin = copy.copy(value)
            self._keep(value, twin)
            for key, item in value.items():
                twin[key] = self._item(value, key, item)
            return twin
        if isinstance(value, list):
            twin = copy.copy(value)
            self._keep(value, twin)
            twin[:] = [self._item(value, index, item) for index, item in enumerate(value)]
            return twin
        if isinstance(value, tuple):
            items = [self._item(value, index, item) for index, item in enumerate(value)]
            twin = type(value)(*items) if hasattr(value, "_fields") else tuple(items)
            return self._keep(value, twin)
        if is_stateful_object(value):
            twin = copy.copy(value)
            self._keep(value, twin)
            self._keep(vars(value), vars(twin))
            for key, item in vars(value).items():
                vars(twin)[key] = self._item(vars(value), key, item)
            return twin
        return value

    def _item(self, container: Any, key: Any, value: Any) -> Any:
        if isinstance(value, mx.array):
            return self._replace(container, key, value)
        if _is_user_callable(value):
            return self.function(value)
        if isinstance(value, (nn.Module, *_CONTAINERS)):
            return self.value(value)
        return value

    def _keep(self, original: Any, twin: Any) -> Any:
        self._copies[id(original)] = twin
        self._originals[id(twin)] = original
        self._alive += [original, twin]
        return twin
