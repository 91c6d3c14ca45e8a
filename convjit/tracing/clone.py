"""A copy of what a function reads, to run it on without touching a live object; and what the run changed there."""

from __future__ import annotations

import copy
import functools
import itertools
import types
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from convjit.errors import TraceError, UnsettledError
from convjit.guards.bindings import bindings, rebinds
from convjit.guards.state import (
    child_path,
    holds_state,
    is_followed,
    is_function,
    is_object,
    unwrap,
    value_and_grad_parts,
)
from convjit.guards.walk import Walk
from convjit.tracing import trees

_MISSING = object()
_ONCE = "a trace would do that only once, not at every call"


class Clone:
    """A structural copy of what a `Walk` follows, with other arrays in it and every function rebound to it.

    Args:
        replace: (container, key, array) -> the array to put into the copy.
    """

    def __init__(self, replace: Callable[[Any, Any, mx.array], mx.array]):
        self._replace = replace
        self._copies: dict[int, Any] = {}
        self._originals: dict[int, Any] = {}
        self._alive: list[Any] = []
        self._containers: list[tuple[Any, Any, Any]] = []
        self._tables: set[int] = set()
        self._exposed: list[tuple[Any, Any]] = []
        self._globals: dict[int, tuple[dict[str, Any], dict[str, Any]]] = {}
        self._cells: list[tuple[str, types.CellType, Any]] = []

    def original(self, twin: Any) -> Any:
        """The live object that `twin` was copied from, or None."""
        return self._originals.get(id(twin))

    def follow(self, value: Any) -> Any:
        """A copy of a module, container, or object that holds arrays, or a function that does the same to copies."""
        value = unwrap(value)
        if id(value) in self._copies:
            return self._copies[id(value)]
        if isinstance(value, nn.Module):
            twin = self._keep(value, type(value).__new__(type(value)))
            for key, item in value.items():
                dict.__setitem__(twin, key, self._item(value, key, item))
            self._containers.append((value, twin, dict(twin)))
            return self._with_attributes(value, twin)
        if isinstance(value, dict):
            twin = self._keep(value, copy.copy(value))
            for key, item in value.items():
                twin[key] = self._item(value, key, item)
            self._containers.append((value, twin, dict(twin)))
            self._tables.add(id(value))
            return twin
        if isinstance(value, list):
            twin = self._keep(value, copy.copy(value))
            twin[:] = [self._item(value, index, item) for index, item in enumerate(value)]
            self._containers.append((value, twin, list(twin)))
            return twin
        if isinstance(value, tuple):
            return self._tuple(value)
        if isinstance(value, types.MethodType):
            return self._keep(value, types.MethodType(self.follow(value.__func__), self.follow(value.__self__)))
        if isinstance(value, functools.partial):
            arguments, keywords = self.follow(value.args), self.follow(value.keywords)
            return self._keep(value, functools.partial(self.follow(value.func), *arguments, **keywords))
        if type(value) is types.FunctionType:
            return self._function(value)
        if is_object(value) and holds_state(value):
            return self._with_attributes(value, self._keep(value, copy.copy(value)))
        return value

    def _item(self, container: Any, key: Any, value: Any) -> Any:
        if isinstance(value, mx.array):
            return self._replace(container, key, value)
        if is_followed(value):
            return self.follow(value)
        return value

    def _with_attributes(self, value: Any, twin: Any) -> Any:
        attributes, copies = vars(value), vars(twin)
        self._keep(attributes, copies)
        for key, item in attributes.items():
            copies[key] = self._item(attributes, key, item)
        self._containers.append((attributes, copies, dict(copies)))
        return twin

    def _tuple(self, value: tuple[Any, ...]) -> tuple[Any, ...]:
        items = [self._item(value, index, item) for index, item in enumerate(value)]
        if all(new is old for new, old in zip(items, value, strict=True)):
            return value
        return self._keep(value, trees.like(value, items))

    def _function(self, function: types.FunctionType) -> types.FunctionType:
        if not _needs_copy(function):
            return function
        if parts := value_and_grad_parts(function):
            return self._keep(function, nn.value_and_grad(*map(self.follow, parts)))
        cells = [self._cell(cell) for cell in function.__closure__ or ()]
        scope, initial = self._scope(function.__globals__)
        twin = types.FunctionType(function.__code__, scope, function.__name__, None, tuple(cells))
        twin.__qualname__ = function.__qualname__
        vars(twin).update(vars(function))
        self._keep(function, twin)
        twin.__defaults__ = function.__defaults__ and self.follow(function.__defaults__)
        twin.__kwdefaults__ = function.__kwdefaults__ and self.follow(function.__kwdefaults__)
        for name, holder, value in bindings(function):
            new = self._replace(holder, name, value) if isinstance(value, mx.array) else self.follow(value)
            if isinstance(holder, types.CellType):
                cell = self._copies[id(holder)]
                cell.cell_contents = new
                self._cells.append((name, cell, new))
            else:
                scope[name] = initial[name] = new
        return twin

    def _cell(self, cell: types.CellType) -> types.CellType:
        """The copy of a cell; functions that share a variable go on sharing it."""
        if id(cell) in self._copies:
            return self._copies[id(cell)]
        return self._keep(cell, types.CellType())

    def _scope(self, scope: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The copy of a globals dict, and its contents before the run."""
        if id(scope) not in self._globals:
            self._alive.append(scope)
            self._globals[id(scope)] = (dict(scope), dict(scope))
        return self._globals[id(scope)]

    def _keep(self, original: Any, twin: Any) -> Any:
        self._copies[id(original)] = twin
        self._originals[id(twin)] = original
        self._alive += [original, twin]
        return twin

    def expose(self, containers: Iterable[Any]) -> None:
        """Let a run reach these containers themselves, until `cover`."""
        self._exposed = [(container, copy.copy(container)) for container in containers]

    def cover(self) -> None:
        """Undo what a run did to the exposed containers; `written` tells of it."""
        for container, before in self._exposed:
            after = copy.copy(container)
            self._containers.append((container, after, before))
            if _ids(after) != _ids(before):
                restore(container, before)

    def written(self, path_of: Callable[[Any], str | None]) -> list[tuple[Any, Any, mx.array]]:
        """(live container, key, new array) of each array that a run put into the copies.

        Args:
            path_of: a live container's path from the user's point of view.

        Raises:
            UnsettledError: if it put something else there, as an optimizer does when it runs for the first time.
            TraceError: if it changed the copies in any other way, which a trace would not repeat at every call.
        """
        self._refuse_rebound_names()
        written: list[tuple[Any, Any, mx.array]] = []
        for original, twin, before in self._containers:
            if isinstance(twin, (list, deque)):
                if len(twin) != len(before):
                    kind = type(twin).__name__
                    raise TraceError(f"it changes the length of the {kind} '{path_of(original)}'; {_ONCE}")
                now, then = dict(enumerate(twin)), dict(enumerate(before))
            else:
                now, then = twin, before
            for key in then.keys() - now.keys():
                raise UnsettledError(f"it removes '{child_path(path_of(original), key)}'; {_ONCE}")
            for key, value in now.items():
                old = then.get(key, _MISSING)
                if isinstance(value, mx.array) and value is not old:
                    written.append((original, key, value))
                elif not _same(value, old) and not (old is _MISSING and self._is_memo(original, value)):
                    path = child_path(path_of(original), key)
                    if isinstance(value, (dict, list)) and holds_state(value):
                        kind = type(value).__name__
                        raise UnsettledError(
                            f"it puts another {kind} of arrays into '{path}'; put the arrays into the one that is there"
                        )
                    raise UnsettledError(f"it changes '{path}'; {_ONCE}")
        return written

    def _is_memo(self, container: Any, value: Any) -> bool:
        """Is this a dict that the run added a value without arrays to, as to a table of what was computed before?"""
        return id(container) in self._tables and not holds_state(value)

    def _refuse_rebound_names(self) -> None:
        for scope, before in self._globals.values():
            for name in scope.keys() | before.keys():
                if not _same(scope.get(name, _MISSING), before.get(name, _MISSING)):
                    raise TraceError(f"it assigns the global '{name}'; {_ONCE}")
        for name, cell, before in self._cells:
            if not _same(cell.cell_contents, before):
                raise TraceError(f"it assigns '{name}' of an enclosing function; {_ONCE}")


def restore(container: Any, before: Any) -> None:
    """Make the contents of a live dict, list or deque those of a copy made before."""
    container.clear()
    container.update(before) if isinstance(container, dict) else container.extend(before)


def _ids(container: Any) -> list[int]:
    items = itertools.chain.from_iterable(container.items()) if isinstance(container, dict) else container
    return [*map(id, items)]


def _needs_copy(function: types.FunctionType) -> bool:
    if not is_function(function):
        return False
    walk = Walk().follow(function)
    return bool(walk.slots or walk.names or walk.sizes) or rebinds(function.__code__)


def _same(value: Any, old: Any) -> bool:
    """Whether nothing was changed; `nn.value_and_grad(model, f)(model, x)` makes a module's tuples anew, for one."""
    if value is old or type(value) is not type(old):
        return value is old
    if isinstance(value, tuple):
        return len(value) == len(old) and all(map(_same, value, old))
    return isinstance(value, (bool, int, float, str)) and value == old
