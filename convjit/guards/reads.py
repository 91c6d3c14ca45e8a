"""Which attributes of the user's objects a run reads: no other one can make the next run differ.

A trainer counts its steps and collects its losses beside the model that its step trains. To tell these apart, the
classes of the objects in question get a `__getattribute__` that takes notes, for the time of one run; and a
`__setattr__` and a `__delattr__`: what writes a value that is there already is no change, until the user changes it.
"""

from __future__ import annotations

import inspect
import threading
import types
from collections.abc import Callable, Collection, Generator
from contextlib import ExitStack, contextmanager
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from convjit.errors import TraceError
from convjit.guards.bindings import attribute_names, bindings
from convjit.guards.state import is_library

_EVERYTHING = frozenset({"__dict__", "__getstate__", "__reduce__", "__reduce_ex__"})
"""What `vars`, `copy`, `pickle` and the like ask an object for, before they read all that it has."""

_OF_MODULES = frozenset(vars(nn.Module()))
"""Attributes that methods of `nn.Module` read."""

HOOKS = frozenset({"__getattribute__", "__setattr__", "__delattr__"})
"""What every access to an attribute goes through, but for those that call the hooks of `object` itself."""

_HEAP_TYPE, _IMMUTABLE_TYPE = 1 << 9, 1 << 8
"""Flags of classes: made by Python code, or not to be changed."""

Closed = dict[tuple[int, str], str]
"""(id of an object, attribute) -> why a run must not read it."""

_active: tuple[Callable[[Any, str], None], ...] = ()
_noted: dict[type, int] = {}
_lock = threading.Lock()


class Reads:
    """The attributes that runs read of some objects."""

    def __init__(self) -> None:
        self._names: dict[int, set[str]] = {}
        self._original: Callable[[Any], Any] = lambda value: None

    def of(self, value: Any) -> frozenset[str] | None:
        """The names of the attributes that were read; None if it may have been any."""
        names = self._names.get(self._identity(value))
        if names is None or names & _EVERYTHING:
            return None
        return frozenset(names) | _OF_MODULES if isinstance(value, nn.Module) else frozenset(names)

    def any_of(self, value: Any) -> bool:
        """Was any attribute of this object read?"""
        return bool(self._names.get(self._identity(value)))

    def by(self, original: Callable[[Any], Any]) -> Reads:
        """The same of copies of the objects; `original` gives the object that one was made of, or None."""
        copies = Reads()
        copies._names, copies._original = self._names, original
        return copies

    @contextmanager
    def noted(self, objects: Collection[Any], original: Callable[[Any], Any], closed: Closed) -> Generator[None]:
        """Add what is read meanwhile, in whichever thread: a run may have some of its own.

        Args:
            objects: which to look at; `can_note` holds for their classes.
            original: see `by`.
            closed: attributes of theirs that must not be read.

        Raises:
            TraceError: if one of these was read all the same, here or from a copy; others may read the user's objects.
        """
        copies, refused, here = self.by(original), list[str](), threading.get_ident()

        def note(value: Any, name: str) -> None:
            owner = copies._identity(value)
            names = self._names.get(owner)
            if names is None:
                return
            names.add(name)
            if id(value) == owner and threading.get_ident() != here:
                return
            opened = [
                why for (id_, key), why in closed.items() if id_ == owner and (key == name or name in _EVERYTHING)
            ]
            if opened:
                refused.append(opened[0])
                raise TraceError(opened[0])

        with ExitStack() as stack:
            for value in objects:
                self._names.setdefault(id(value), set())
            for cls in set(map(type, objects)):
                stack.enter_context(_noting(cls))
            stack.enter_context(_active_too(note))
            yield
        if refused:  # whatever the function made of the error
            raise TraceError(refused[0])

    def _identity(self, value: Any) -> int:
        original = self._original(value)
        return id(value if original is None else original)


def can_note(cls: type) -> bool:
    """Does every access to an attribute go through the hooks of `cls`, and can these be replaced for a while?"""
    meta = type(cls)
    if is_library(cls.__module__):
        return False
    if meta.__setattr__ is not type.__setattr__ or meta.__delattr__ is not type.__delattr__:
        return False
    if not cls.__flags__ & _HEAP_TYPE or cls.__flags__ & _IMMUTABLE_TYPE:
        return False
    bases = [base for base in cls.__mro__ if not is_library(base.__module__)]
    own = [
        (name, member)
        for base in bases
        for name, member in dict(vars(base)).items()
        if getattr(member, "__module__", None) != __name__  # put there by a run that goes on in another thread
    ]
    return not any(name in HOOKS or _calls_hooks(getattr(member, "__code__", None)) for name, member in own)


def evades(function: types.FunctionType) -> bool:
    """May this function reach attributes past the hooks of a class? Since Python 3.12, protocols do."""
    if _calls_hooks(function.__code__):
        return True
    values = [value for _, _, value in bindings(function)]
    names = attribute_names(function.__code__)
    return "getattr_static" in names or any(
        value is inspect.getattr_static
        or isinstance(value, types.WrapperDescriptorType)
        or (isinstance(value, type) and getattr(value, "_is_runtime_protocol", False))
        for value in values
    )


def _calls_hooks(code: types.CodeType | None) -> bool:
    """Does this code call hooks by themselves, most likely those of `object`?"""
    return code is not None and not HOOKS.isdisjoint(attribute_names(code))


@contextmanager
def _active_too(note: Callable[[Any, str], None]) -> Generator[None]:
    global _active
    with _lock:
        _active = (*_active, note)
    try:
        yield
    finally:
        with _lock:
            _active = tuple(other for other in _active if other is not note)


@contextmanager
def _noting(cls: type) -> Generator[None]:
    """Let accesses to attributes be noted; several may ask for it at the same time."""
    with _lock:
        _noted[cls] = _noted.get(cls, 0) + 1
        if _noted[cls] == 1:
            for hook in _hooks_of(cls):
                setattr(cls, hook.__name__, hook)
    try:
        yield
    finally:
        with _lock:
            _noted[cls] -= 1
            if not _noted[cls]:
                for name in HOOKS:
                    delattr(cls, name)
                del _noted[cls]


def _hooks_of(cls: type) -> tuple[Callable[..., Any], ...]:
    # By `super()`, as others of the classes that an object is of may have hooks, too.

    def note(value: Any, name: str) -> None:
        for each in _active:
            each(value, name)

    def __getattribute__(self: Any, name: str) -> Any:
        note(self, name)
        return super(cls, self).__getattribute__(name)

    def __setattr__(self: Any, name: str, value: Any) -> None:
        if not isinstance(value, mx.array):  # an array is a result of the program, and is written at every call
            note(self, name)
        super(cls, self).__setattr__(name, value)

    def __delattr__(self: Any, name: str) -> None:
        note(self, name)
        super(cls, self).__delattr__(name)

    return __getattribute__, __setattr__, __delattr__
