"""What a function reads besides its arguments: modules in `__self__`, closures, globals, and all they hold.

`Walk` lists everything a captured program depends on, so that `guard.py` can tell cheaply whether it changed;
`clone.py` copies the same structure, so that a trace never touches a live object.
"""

from __future__ import annotations

import functools
import gc
import sys
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from convjit.bindings import attribute_names, bindings, cells

CONTAINERS = (dict, list, tuple)

_TRANSFORMED = type(mx.grad(lambda x: x))
_CACHED: type = type(functools.lru_cache(lambda: None))
_OPAQUE: tuple[type, ...] = (_TRANSFORMED, mx.custom_function, _CACHED)
"""Callables that keep a Python function where it cannot be exchanged for a copy: mx.grad, mx.compile and the like.
They forward `__class__` to it, so that `isinstance` takes them for functions."""

_VALUE_AND_GRAD: types.CodeType = getattr(nn.value_and_grad(nn.Module(), lambda: None), "__code__")  # noqa: B009
"""The code of every function that `nn.value_and_grad` returns."""

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
        return bool(plain.__closure__) or not _is_library(plain.__module__)
    return plain is not value or isinstance(plain, (types.MethodType, functools.partial, *_OPAQUE))


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
    if not hasattr(value, "__dict__") or _slot_names(cls) or is_function(value) or hasattr(cls, "__copy__"):
        return False
    ordinary = cls.__reduce_ex__ is object.__reduce_ex__ and cls.__reduce__ is object.__reduce__
    return ordinary or cls is types.SimpleNamespace


def is_state(value: object) -> bool:
    """Is an argument of a call to be followed, rather than compared by value?"""
    if isinstance(value, nn.Module) or is_function(value):
        return True
    if isinstance(value, CONTAINERS):
        return False
    has_attributes = is_object(value) or bool(_slot_names(type(value)))
    return (has_attributes and type(value).__hash__ is object.__hash__) or holds_state(value)


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


def is_followed(value: object) -> bool:
    """Does a walk, and a clone, go on into a value that it finds in a container?"""
    return isinstance(value, (nn.Module, *CONTAINERS)) or is_function(value) or holds_state(value)


def _items(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, (list, tuple)):
        return value
    if type(value) is types.FunctionType:
        return [content for _, _, content in cells(value)]
    if isinstance(value, types.MethodType):
        return (value.__self__,)
    if isinstance(value, functools.partial):
        return (value.func, *value.args, *value.keywords.values())
    if is_function(value):
        return ()
    slots = [getattr(value, name) for name in _slot_names(type(value)) if hasattr(value, name)]
    return [*vars(value).values(), *slots] if is_object(value) or _is_of_the_user(value) else slots


def _is_of_the_user(value: object) -> bool:
    return hasattr(value, "__dict__") and not _is_library(type(value).__module__)


@functools.lru_cache(maxsize=4096)
def _slot_names(cls: type) -> tuple[str, ...]:
    names = (vars(base).get("__slots__", ()) for base in cls.__mro__ if not _is_library(base.__module__))
    return tuple(name for given in names for name in ((given,) if isinstance(given, str) else given))


def _is_library(module: str | None) -> bool:
    return (module or "").partition(".")[0] in _LIBRARIES


class Walk:
    """Everything reachable from a function and its arguments that a captured program depends on.

    Attributes:
        slots: places that hold arrays inside modules, containers and objects.
        captured: bare arrays in closures, globals and classes, by name: they freeze, as in `mx.compile`.
        items: (container, key, value) of everything else: plain attributes, child containers.
        sizes: (container, length), so that a new key is seen.
        sets: (set, its elements), such as the names of a module's frozen parameters.
        names: (cell or namespace, name, value) of the bindings that were followed.
        shared: lists and dicts that methods of classes reach: no copy can take their place.
        obstacles: why the function cannot be captured; one clause each.
        alive: what was visited, so that no id is used again while this list lives.
    """

    def __init__(self) -> None:
        self.slots: list[Slot] = []
        self.captured: list[tuple[str, mx.array]] = []
        self.items: list[tuple[Any, Any, Any]] = []
        self.sizes: list[tuple[Any, int]] = []
        self.sets: list[tuple[set[Any], frozenset[Any]]] = []
        self.names: list[tuple[Any, str, Any]] = []
        self.shared: list[Any] = []
        self.obstacles: list[str] = []
        self.alive: list[Any] = []
        self._paths: dict[int, str] = {}
        self._seen: set[int] = set()
        self._seen_fixed: set[int] = set()

    def path_of(self, container: object) -> str | None:
        """The path of a module or container: "layers.0.conv1", or "" for the outermost one; None if unknown."""
        return self._paths.get(id(container))

    def follow(self, value: Any, path: str = "") -> Walk:
        """Follow a module, a container, an object or a function, named `path` by the user."""
        value = unwrap(value)
        if not self._first_visit(value, self._seen):
            return self
        if isinstance(value, nn.Module):
            self._class(type(value))
            self._mapping(value, path)
            self._mapping(vars(value), path)
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
        elif isinstance(value, _OPAQUE):
            self._opaque(value, path)
        elif is_object(value):
            self._class(type(value))
            self._mapping(vars(value), path)
        elif _slot_names(type(value)):
            self.obstacles.append(f"'{path}' is of {type(value).__name__}, whose attributes are in __slots__")
        elif holds_state(value):
            self.obstacles.append(
                f"'{path}', of {type(value).__name__}, holds arrays where a copy cannot be made of it"
            )
        return self

    def _mapping(self, mapping: dict[Any, Any], path: str) -> None:
        self._sized(mapping, path)
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

    def _function(self, function: types.FunctionType, path: str) -> None:
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
            elif holds_state(value):
                self.names.append((holder, name, value))
                self.follow(value, name)
            elif is_function(value):
                self.follow(value, name)
            elif isinstance(value, Iterator):
                self.obstacles.append(f"it reads '{name}', an iterator, from outside; make what it gives an argument")
            elif isinstance(value, (dict, list)):
                self._sized(value, name)
            elif is_object(value):
                self._sized(vars(value), name)

    def _frozen(self, name: str, holder: Any, array: mx.array) -> None:
        self.captured.append((name, array))
        self.names.append((holder, name, array))

    # What cannot be exchanged for a copy: the code of classes, what modules of Python hold, and opaque callables.

    def _class(self, cls: type) -> None:
        for base in cls.__mro__:
            if _is_library(base.__module__) or not self._first_visit(base, self._seen_fixed):
                continue
            members = {
                name: unwrap(getattr(member, "__func__", getattr(member, "fget", member)))
                for name, member in vars(base).items()
                if name == "__call__" or not name.startswith("__")
            }
            functions = {name: m for name, m in members.items() if type(m) is types.FunctionType}
            for name, function in functions.items():
                self._fixed(function, f"{base.__name__}.{name}")
            read = frozenset[str]().union(*(attribute_names(f.__code__) for f in functions.values()))
            for name in read & (members.keys() - functions.keys()):
                if isinstance(members[name], mx.array):
                    self._frozen(name, vars(base), members[name])
                else:
                    self._refuse_state(members[name], name, base.__name__)

    def _fixed(self, function: types.FunctionType, where: str) -> None:
        if not self._first_visit(function, self._seen_fixed):
            return
        for name, holder, value in bindings(function):
            if isinstance(value, mx.array):
                self._frozen(name, holder, value)
            elif isinstance(value, (type, types.ModuleType)):
                self._namespace(value, function)
            elif type(plain := unwrap(value)) is types.FunctionType:
                if is_function(plain):
                    self._fixed(plain, where)
            elif isinstance(value, (dict, list)) and not holds_state(value):
                self.shared.append(value)
            else:
                self._refuse_state(value, name, where)

    def _namespace(self, namespace: Any, function: types.FunctionType) -> None:
        if _is_library(namespace.__name__ if isinstance(namespace, types.ModuleType) else namespace.__module__):
            return
        members = vars(namespace)
        for name in attribute_names(function.__code__) & members.keys():
            member = unwrap(members[name])
            if isinstance(member, mx.array):
                self._frozen(name, members, member)
            elif type(member) is types.FunctionType:
                if is_function(member):
                    self._fixed(member, name)
            elif not isinstance(member, (type, types.ModuleType)):
                self._refuse_state(member, name, function.__name__)

    def _opaque(self, value: Any, path: str) -> None:
        self._refuse_state(value, path or getattr(value, "__name__", "it"), "")

    def _refuse_state(self, value: Any, name: str, where: str) -> None:
        value = unwrap(value)
        if isinstance(value, _OPAQUE):
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
