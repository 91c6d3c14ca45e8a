"""What a function reads besides its arguments: modules in `__self__`, closures, globals, and all they hold.

`Walk` lists everything a captured program depends on, so that `guard.py` can tell cheaply whether it changed;
`clone.py` copies the same structure, so that a trace never touches a live object.
"""

from __future__ import annotations

import functools
import gc
import types
from collections import deque
from collections.abc import Iterator
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from convjit.guards.bindings import attribute_names, bindings
from convjit.guards.reads import Closed, Reads, can_note, evades
from convjit.guards.state import (
    CONTAINERS,
    OPAQUE,
    Elements,
    Slot,
    child_path,
    holds_state,
    is_followed,
    is_function,
    is_library,
    is_object,
    is_uncopied,
    slot_names,
    unwrap,
    value_and_grad_parts,
)

_DEPTH = 3
"""How far a view may be from what it shows: a `ChainMap` has a dict, a list in it, and dicts in that."""

_NO_VIEWS = (type, types.ModuleType, types.FunctionType, types.CodeType)


class Walk:
    """Everything reachable from a function and its arguments that a captured program depends on.

    Attributes:
        slots: places that hold arrays inside modules, containers and objects.
        captured: bare arrays in closures, globals and classes, by name: they freeze, as in `mx.compile`.
        items: (container, key, value) of everything else: plain attributes, child containers.
        sizes: (container, length), so that a new key is seen.
        sets: (set, its elements), such as the names of a module's frozen parameters; likewise for deques.
        names: (cell or namespace, name, value) of the bindings that were followed.
        functions: likewise of functions that hold nothing.
        shared: lists and dicts that classes and their methods reach: no copy can take their place.
        uncopied: dicts, lists and deques of objects without arrays, which a run on copies reaches themselves.
        objects: those of which a run can tell which attributes it reads; they were followed to all.
        read: (attributes, names) of the other objects: only these names count.
        whole: dicts that count altogether; one of them may be the attributes of an object, too.
        reads: the attributes that runs read so far.
        obstacles: why the function cannot be captured; one clause each.
        closed: (id of an object, attribute) -> why it cannot be captured if it reads that.
        alive: what was visited, so that no id is used again while this list lives.
    """

    def __init__(self, reads: Reads | None = None, closed: Closed | None = None) -> None:
        self.slots: list[Slot] = []
        self.captured: list[tuple[str, mx.array]] = []
        self.items: list[tuple[Any, Any, Any]] = []
        self.sizes: list[tuple[Any, int]] = []
        self.sets: list[tuple[Any, Any]] = []
        self.names: list[tuple[Any, str, Any]] = []
        self.functions: list[tuple[Any, str, Any]] = []
        self.shared: list[Any] = []
        self.uncopied: list[Any] = []
        self.objects: list[Any] = []
        self.read: list[tuple[dict[str, Any], frozenset[str]]] = []
        self.whole: list[dict[Any, Any]] = []
        self.reads = reads or Reads()
        self._is_first, self._evades = reads is None, False
        self._unknown: list[tuple[Any, tuple[int, str] | None]] = []
        self._place: tuple[int, str] | None = None
        self._views = False
        self._notable: dict[type, bool] = {}
        self.obstacles: list[str] = []
        self.closed: Closed = dict(closed or {})
        self.alive: list[Any] = []
        self._paths: dict[int, str] = {}
        self._seen: set[int] = set()
        self._seen_fixed: set[int] = set()

    @property
    def noted(self) -> list[Any]:
        """Those of `objects` of which a run is to tell what it reads."""
        return [] if self._evades or self._views else self.objects

    @property
    def obstacle(self) -> str | None:
        """Why a run cannot even begin."""
        return next(iter([*self.obstacles, *(() if self.noted else self.closed.values())]), None)

    @property
    def leaves_out_some(self) -> bool:
        """Are there attributes that no run read so far?"""
        read = ((vars(value), self.reads.of(value)) for value in self.objects)
        return any(names is not None and not attributes.keys() <= names for attributes, names in read)

    def look_through_views(self) -> None:
        """Find out which containers are shown by what could not be followed: when all that can be was."""
        for value, place in self._unknown:
            shown = self._shown_by(value)
            with_arrays = [container for container in shown if holds_state(container)]
            if with_arrays:
                why = f"it reads '{self.path_of(with_arrays[0])}', which holds arrays, through a view of it"
                if place:
                    self.closed[place] = why
                else:
                    self.obstacles.append(why)
            self._views |= bool(shown) and not (with_arrays and place)

    def _shown_by(self, value: Any) -> list[Any]:
        """The containers that something shows, as a view or a bound method does."""
        shown: list[Any] = []
        level, seen = [value], set[int]()
        for _ in range(_DEPTH):
            found = gc.get_referents(*(item for item in level if not isinstance(item, _NO_VIEWS)))
            level = [referent for referent in found if id(referent) not in seen]
            shown += [referent for referent in level if id(referent) in self._paths]
            seen.update(map(id, level))
        return shown

    def read_objects(self) -> list[tuple[Any, str]]:
        """Those of `objects` of which an attribute was read, and their paths."""
        return [(value, self.path_of(vars(value)) or "") for value in self.objects if self.reads.any_of(value)]

    def path_of(self, container: object) -> str | None:
        """The path of a module or container: "layers.0.conv1", or "" for the outermost one; None if unknown."""
        return self._paths.get(id(container))

    def has(self, value: object) -> bool:
        """Was this very object followed?"""
        return id(value) in self._seen

    def follow(self, value: Any, path: str = "") -> Walk:
        """Follow a module, a container, an object or a function, named `path` by the user."""
        value = unwrap(value)
        if not self._first_visit(value, self._seen):
            return self
        if isinstance(value, nn.Module):
            self._class(type(value))
            self._mapping(value, path)
            self._attributes(value, path)
        elif isinstance(value, dict):
            self._mapping(value, path)
        elif isinstance(value, (list, tuple)):
            self._sequence(value, path)
        elif isinstance(value, types.MethodType):
            self.follow(value.__self__, path)
            self.follow(value.__func__, path)
        elif isinstance(value, functools.partial):
            self.follow(value.func, path)
            self.follow(value.args, path)
            self.follow(value.keywords, path)
        elif type(value) is types.FunctionType:
            self._function(value, path)
        elif isinstance(value, OPAQUE):
            self._opaque(value, path)
        elif slot_names(type(value)):
            self.obstacles.append(f"'{path}' is of {type(value).__name__}, whose attributes are in __slots__")
        elif not holds_state(value):
            self._without_arrays(value, path)
        elif is_object(value):
            self._class(type(value))
            self._attributes(value, path)
        else:
            self.obstacles.append(
                f"'{path}', of {type(value).__name__}, holds arrays where a copy cannot be made of it"
            )
        return self

    def _attributes(self, value: Any, path: str) -> None:
        attributes, names = vars(value), self.reads.of(value)
        is_noted = self._is_first and self._can_note(type(value))
        self._sized(attributes, path)
        if names is not None:
            self.read.append((attributes, names))
        if is_noted:
            self.objects.append(value)
        for key, item in attributes.items():
            if (names is None or key in names) and (id(value), key) not in self.closed:
                first, outer = len(self.obstacles), self._place
                self._place = (id(value), key) if is_noted else outer
                self._entry(attributes, key, item, child_path(path, key))
                self._place = outer
                if self.obstacles[first:] and is_noted:
                    self.closed[id(value), key] = self.obstacles[first]
                    del self.obstacles[first:]

    def _can_note(self, cls: type) -> bool:
        if cls not in self._notable:
            self._notable[cls] = can_note(cls)
        return self._notable[cls]

    def _mapping(self, mapping: dict[Any, Any], path: str) -> None:
        self._sized(mapping, path)
        self.whole.append(mapping)
        for key, value in mapping.items():
            self._entry(mapping, key, value, child_path(path, key))

    def _sequence(self, sequence: list[Any] | tuple[Any, ...], path: str) -> None:
        self._sized(sequence, path)
        for index, value in enumerate(sequence):
            self._entry(sequence, index, value, child_path(path, index))

    def _sized(self, container: Any, path: str) -> None:
        self._paths.setdefault(id(container), path)
        if not isinstance(container, tuple):
            self.sizes.append((container, len(container)))

    def _entry(self, container: Any, key: Any, value: Any, path: str) -> None:
        if isinstance(value, mx.array):
            self.slots.append(Slot(container, key, path))
            return
        self.items.append((container, key, value))
        if isinstance(value, set):
            self.sets.append((value, frozenset(value)))
        elif is_followed(value):
            self.follow(value, path)
        elif gc.is_tracked(value):
            self._unknown.append((value, self._place))

    def _without_arrays(self, value: Any, path: str) -> None:
        """Follow a deque or an object, which a run on copies reaches itself."""
        first = len(self.sizes)
        if isinstance(value, deque):
            self._paths.setdefault(id(value), path)
            self.sets.append((value, Elements(value)))
            self.uncopied.append(value)
            for index, item in enumerate(value):
                self._entry(value, index, item, child_path(path, index))
        elif is_object(value):
            self._class(type(value))
            self._attributes(value, path)
        self.uncopied += [container for container, _ in self.sizes[first:]]

    def _function(self, function: types.FunctionType, path: str) -> None:
        self._evades |= evades(function)
        if parts := value_and_grad_parts(function):
            for part in reversed(parts):  # the function first: it may know the model by the user's own name
                self.follow(part, path)
            return
        for defaults in (function.__defaults__, function.__kwdefaults__):
            if defaults and holds_state(defaults):
                self.follow(defaults, path)
        for name, holder, value in bindings(function):
            if isinstance(value, mx.array):
                self._frozen(name, holder, value)
            elif isinstance(value, (type, types.ModuleType)):
                self._namespace(value, function)
            elif isinstance(value, Iterator) and not holds_state(value):
                self.obstacles.append(f"it reads '{name}', an iterator, from outside; make what it gives an argument")
            elif is_followed(value):
                is_plain = is_function(value) and not holds_state(value)
                (self.functions if is_plain else self.names).append((holder, name, value))
                self.follow(value, name)
            elif callable(value):
                self.functions.append((holder, name, value))
            elif gc.is_tracked(value):
                self._unknown.append((value, self._place))

    def _frozen(self, name: str, holder: Any, array: mx.array) -> None:
        self.captured.append((name, array))
        self.names.append((holder, name, array))

    # What cannot be exchanged for a copy: the code of classes, what modules of Python hold, and opaque callables.

    def _class(self, cls: type) -> None:
        for base in cls.__mro__:
            if is_library(base.__module__) or not self._first_visit(base, self._seen_fixed):
                continue
            members = {
                name: unwrap(getattr(member, "__func__", getattr(member, "fget", member)))
                for name, member in dict(vars(base)).items()  # a copy: other threads may note what is read
                if name == "__call__" or not name.startswith("__")
            }
            functions = {name: m for name, m in members.items() if type(m) is types.FunctionType}
            for name, function in functions.items():
                self._fixed(function, f"{base.__name__}.{name}")
            read = frozenset[str]().union(*(attribute_names(f.__code__) for f in functions.values()))
            for name in read & (members.keys() - functions.keys()):
                if isinstance(members[name], mx.array):
                    self._frozen(name, vars(base), members[name])
                elif isinstance(members[name], (dict, list)) and not holds_state(members[name]):
                    self.shared.append(members[name])
                else:
                    self._refuse_state(members[name], name, base.__name__)
                    if is_uncopied(members[name]):
                        self.follow(members[name], name)

    def _fixed(self, function: types.FunctionType, where: str) -> None:
        if not self._first_visit(function, self._seen_fixed):
            return
        self._evades |= evades(function)
        for name, holder, value in bindings(function):
            if isinstance(value, mx.array):
                self._frozen(name, holder, value)
            elif isinstance(value, (type, types.ModuleType)):
                self._namespace(value, function)
            elif type(plain := unwrap(value)) is types.FunctionType:
                self.functions.append((holder, name, value))
                if is_function(plain):
                    self._fixed(plain, where)
            elif isinstance(value, (dict, list)) and not holds_state(value):
                self.shared.append(value)
            else:
                self._refuse_state(value, name, where)

    def _namespace(self, namespace: Any, function: types.FunctionType) -> None:
        if is_library(namespace.__name__ if isinstance(namespace, types.ModuleType) else namespace.__module__):
            return
        members = vars(namespace)
        for name in attribute_names(function.__code__) & members.keys():
            member = unwrap(members[name])
            if isinstance(member, mx.array):
                self._frozen(name, members, member)
            elif type(member) is types.FunctionType:
                self.functions.append((members, name, members[name]))
                if is_function(member):
                    self._fixed(member, name)
            elif not isinstance(member, (type, types.ModuleType)):
                self._refuse_state(member, name, function.__name__)

    def _opaque(self, value: Any, path: str) -> None:
        self._refuse_state(value, path or getattr(value, "__name__", "it"), "")

    def _refuse_state(self, value: Any, name: str, where: str) -> None:
        value = unwrap(value)
        if isinstance(value, OPAQUE):
            inner = Walk()
            for referent in gc.get_referents(value):
                if isinstance(referent, CONTAINERS) or is_function(referent):
                    inner.follow(referent, name)
            self.captured += inner.captured
            self.names += inner.names
            self.obstacles += inner.obstacles
            if inner.slots:
                self.obstacles.append(
                    f"'{name}' was made outside by mx.compile, mx.value_and_grad or the like and holds arrays such as "
                    f"'{inner.slots[0].path}'; make it inside the compiled function"
                )
        elif holds_state(value):
            self.obstacles.append(
                f"'{where}' reads '{name}', which holds arrays, from outside; make it an attribute or an argument"
            )

    def _first_visit(self, value: Any, seen: set[int]) -> bool:
        if id(value) in seen:
            return False
        seen.add(id(value))
        self.alive.append(value)
        return True
