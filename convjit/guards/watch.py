"""All that a program depends on besides its arguments, compared with what it was: at every call, so in C where that is
loaded."""

from __future__ import annotations

import ctypes
import types
from collections.abc import Callable, Sequence
from operator import eq, is_
from typing import Any, NamedTuple

import mlx.core as mx

from convjit.guards.words import AFTER_HEADER, word


class State(ctypes.Structure):
    """See `cj_state` in quick.c."""

    _fields_ = [
        ("addresses", ctypes.c_void_p),
        ("expected", ctypes.c_void_p),
        ("num_words", ctypes.c_long),
        ("lists", ctypes.py_object),
        ("sized", ctypes.py_object),
        ("sets", ctypes.py_object),
        ("cells", ctypes.py_object),
        ("bindings", ctypes.py_object),
        ("absent", ctypes.py_object),
    ]


class Binding(NamedTuple):
    """What a name stands for: `holder` is a cell of a closure, or the mapping of a namespace."""

    holder: Any
    name: str
    value: Any

    def current(self) -> object:
        """What it stands for now; None for nothing."""
        if isinstance(self.holder, types.CellType):
            try:
                return self.holder.cell_contents
            except ValueError:
                return None
        return self.holder.get(self.name)


class Absent(NamedTuple):
    """A name that a mapping does not have."""

    holder: dict[str, Any]
    name: str


class Watched(NamedTuple):
    """What is compared besides words.

    Attributes:
        lists: lists, and the items they have.
        sized: other containers, and their lengths.
        sets: sets and deques, and their elements.
        bindings: names that the function looks up.
        absent: those that it does not find.
    """

    lists: list[tuple[list[Any], list[Any]]]
    sized: list[tuple[Any, int]]
    sets: list[tuple[Any, Any]]
    bindings: list[Binding]
    absent: list[Absent]


class Watch:
    """Arrays, dicts and more, as they are now. It keeps them alive: whoever compares later finds what it was made of.

    Args:
        arrays: arrays; as their words are expected those of `held`.
        held: copies of the arrays that nobody else has.
        dicts: dicts.
        watched: the rest.
    """

    def __init__(
        self, arrays: Sequence[mx.array], held: Sequence[mx.array], dicts: Sequence[dict[Any, Any]], watched: Watched
    ):
        objects = (*arrays, *dicts)
        self._watched = watched
        self._alive = (objects, held)
        self._addresses = (ctypes.c_uint64 * len(objects))(*(id(o) + AFTER_HEADER for o in objects))
        self._expected = (ctypes.c_uint64 * len(objects))(*map(word, (*held, *dicts)))
        self.state = State(
            ctypes.addressof(self._addresses),
            ctypes.addressof(self._expected),
            len(objects),
            *watched[:3],
            [(b.holder, b.value) for b in watched.bindings if isinstance(b.holder, types.CellType)],
            [b for b in watched.bindings if not isinstance(b.holder, types.CellType)],
            watched.absent,
        )

    def unchanged(self) -> bool:
        """Is everything what it was?"""
        return bool(_unchanged(ctypes.byref(self.state))) if _unchanged else self.unchanged_in_python()

    def unchanged_in_python(self) -> bool:
        """The same without C."""
        lists, sized, sets, bindings, absent = self._watched
        return (
            [ctypes.c_uint64.from_address(a).value for a in self._addresses] == list(self._expected)
            and all(len(c) == len(old) and all(map(is_, c, old)) for c, old in lists)
            and all(len(c) == n for c, n in sized)
            and all(eq(s, elements) for s, elements in sets)
            and all(b.current() is b.value for b in bindings)
            and not any(a.name in a.holder for a in absent)
        )


_unchanged: Callable[[Any], int] | None = None


def compare_by(function: Callable[[Any], int]) -> None:
    """Use `cj_unchanged` from now on, which takes a pointer to a `State`."""
    global _unchanged
    _unchanged = function
