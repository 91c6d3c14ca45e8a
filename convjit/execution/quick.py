"""Calls of programs that are one stretch: from the third one with the same weights on, the backend does them alone."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import mlx.core as mx

from convjit.backends import Expected, HasQuickCall, QuickCall
from convjit.guards.state import is_state
from convjit.guards.watch import Watch

if TYPE_CHECKING:
    from convjit.execution.entry import Entry

_VALUES = (type(None), bool, int, float, str)
"""Types of arguments whose value is known if the object is."""


class QuickCalls:
    """The quick call of an entry, made when a state is met again: a step of training meets another in every call."""

    def __init__(self, entry: Entry):
        self._entry = entry
        self._met: weakref.ref[Watch] | None = None  # weak: it holds the weights that a step of training replaces
        self._is_made = False
        self._call: QuickCall | None = None

    def after(self, args: tuple[Any, ...]) -> QuickCall | None:
        """What may do the calls to come, after one with these arguments."""
        watch = self._entry.snapshot.watch
        if watch is None or self._met is None or watch is not self._met():
            self._met, self._is_made, self._call = watch and weakref.ref(watch), False, None
        elif not self._is_made:
            self._is_made, self._call = True, _quick_call(self._entry, watch, args)
        return self._call


def _quick_call(entry: Entry, watch: Watch, args: tuple[Any, ...]) -> QuickCall | None:
    captured = entry.captured
    if captured is None or captured.draws or captured.written or captured.outputs.example is not mx.array:
        return None
    if not all(type(a) is mx.array or type(a) in _VALUES or is_state(a) for a in args):
        return None
    stretch = entry.only_stretch(watch, sum(type(a) is mx.array for a in args))
    if stretch is None or not isinstance(stretch.run, HasQuickCall):
        return None
    return stretch.run.quick_call(Expected(watch, args), stretch.inputs)
