"""Which attributes of the user's objects a run reads: no other one can make the next run differ.

A trainer counts its steps and collects its losses beside the model that its step trains. To tell these apart, the
classes of the objects in question get a `__getattribute__` that takes notes, for the time of one run.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Generator
from contextlib import ExitStack, contextmanager
from typing import Any

import mlx.nn as nn

from convjit.errors import TraceError
from convjit.guards.bindings import attribute_names
from convjit.guards.state import is_library

_EVERYTHING = frozenset({"__dict__", "__getstate__", "__reduce__", "__reduce_ex__"})
"""What `vars`, `copy`, `pickle` and the like ask an object for, before they read all that it has."""

_OF_MODULES = frozenset(vars(nn.Module()))
"""Attributes that methods of `nn.Module` read."""

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
        return None if names is None or names & _EVERYTHING else frozenset(names)

    def by(self, original: Callable[[Any], Any]) -> Reads:
        """The same of copies of the objects; `original` gives the object that one was made of, or None."""
        copies = Reads()
        copies._names, copies._original = self._names, original
        return copies

    @contextmanager
    def noted(self, objects: Collection[Any], original: Callable[[Any], Any], closed: Closed) -> Generator[None]:
        """Add what is read meanwhile, in whichever thread.

        Args:
            objects: which to look at; `can_note` holds for their classes.
            original: see `by`.
            closed: attributes of theirs that must not be read.

        Raises:
            TraceError: if one of these was read all the same.
        """
        copies, refused = self.by(original), list[str]()

        def note(value: Any, name: str) -> None:
            owner = copies._identity(value)
            names = self._names.get(owner)
            if names is None:
                return
            names.add(name)
            opened = [
                why for (id_, key), why in closed.items() if id_ == owner and (key == name or name in _EVERYTHING)
            ]
            if opened:
                refused.append(opened[0])
                raise TraceError(opened[0])

        with ExitStack() as stack:
            for value in objects:
                self._names.setdefault(id(value), set(_OF_MODULES if isinstance(value, nn.Module) else ()))
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
    """Does every read of an attribute go through `cls.__getattribute__`, and can this be replaced for a while?"""
    if is_library(cls.__module__) or type(cls).__setattr__ is not type.__setattr__:
        return False
    if not cls.__flags__ & _HEAP_TYPE or cls.__flags__ & _IMMUTABLE_TYPE:
        return False
    bases = [base for base in cls.__mro__ if not is_library(base.__module__)]
    if any("__getattribute__" in vars(base) and base not in _noted for base in bases):
        return False
    codes = (getattr(member, "__code__", None) for base in bases for member in vars(base).values())
    return not any(code and "__getattribute__" in attribute_names(code) for code in codes)


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
    """Let reads of attributes be noted; several may ask for it at the same time."""
    with _lock:
        _noted[cls] = _noted.get(cls, 0) + 1
        if _noted[cls] == 1:
            setattr(cls, "__getattribute__", _getattribute_of(cls))  # noqa: B010
    try:
        yield
    finally:
        with _lock:
            _noted[cls] -= 1
            if not _noted[cls]:
                delattr(cls, "__getattribute__")
                del _noted[cls]


def _getattribute_of(cls: type) -> Callable[[Any, str], Any]:
    inner: Callable[[Any, str], Any] = getattr(cls, "__getattribute__")  # noqa: B009

    def __getattribute__(self: Any, name: str) -> Any:
        for note in _active:
            note(self, name)
        return inner(self, name)

    return __getattribute__
