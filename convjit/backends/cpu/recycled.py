"""Results whose memory is written again once nobody holds them any more.

An array that MLX makes costs 20 to 200 us: an evaluation, and pages that the kernel has to fetch. The result of an
earlier call of the same program has the right size, and its memory is at hand.
"""

from __future__ import annotations

import ctypes
import itertools
import threading
import weakref
from math import prod

import mlx.core as mx

from convjit.backends.cpu.descriptors import use_counts
from convjit.backends.cpu.memory import Allocation, address_of, aligned_array, new_array
from convjit.backends.cpu.quick import COPY, Quick, Results
from convjit.kernel import DTYPES

_PATIENCE = 16
"""Calls without a free array, after which one more is kept in place of the oldest."""

_BUDGET = 256 << 20
"""Bytes of all arrays that are kept."""


class Recycler:
    """Makes the arrays of one result of a program, of one shape and storage type, uninitialised."""

    def __init__(self, shape: tuple[int, ...], dtype: str, quick: Quick):
        self._shape, self._dtype = shape, dtype
        self._quick = quick
        self._bytes = prod(shape) * DTYPES[dtype]
        self.results = Results()
        self._address = ctypes.addressof(self.results)
        self._used = next(_clock)
        self._missed = 0
        with _lock:
            _recyclers.add(self)

    def __del__(self) -> None:
        self.forget()

    def __call__(self) -> Allocation:
        self._used = next(_clock)
        array: mx.array | None = self._quick.take(self._address, COPY)
        if array is None:
            return self._another()
        return address_of(array), lambda: array

    def _another(self) -> Allocation:
        """One more array, which is kept; not in most calls of a user who holds on to every result."""
        self._missed += 1
        is_refused = self._missed > len(self.results.kept) and self._missed % _PATIENCE
        if is_refused or not 0 < self._bytes <= _BUDGET:
            return new_array(self._shape, self._dtype)
        address, finished = aligned_array(self._shape, self._dtype)
        array = finished()
        if counts := use_counts(array):
            _make_room(self._bytes)
            self._quick.keep(self._address, COPY(array), address, *counts)
        return address, finished

    def held_bytes(self) -> int:
        """Of the arrays that are kept now."""
        return sum(bool(kept.array) for kept in self.results.kept) * self._bytes

    def last_used(self) -> int:
        """The time of the last call: a count of all calls."""
        return self._used

    def forget(self) -> None:
        """Keep no array."""
        self._quick.forget(self._address)


_clock = itertools.count()
_recyclers: weakref.WeakSet[Recycler] = weakref.WeakSet()
_lock = threading.RLock()  # a collection of garbage while it is held may run a user's code
_held_at_most = 0
"""What was held when it was counted last, and all bytes since: a count takes as long as there are recyclers."""


def _make_room(needed: int) -> None:
    """Have those that were not used for the longest time forget what they keep."""
    global _held_at_most
    with _lock:
        _held_at_most += needed
        if _held_at_most <= _BUDGET:
            return
        recyclers = sorted(_recyclers, key=Recycler.last_used)
        _held_at_most = sum(r.held_bytes() for r in recyclers) + needed
        for recycler in recyclers:
            if _held_at_most <= _BUDGET:
                return
            _held_at_most -= recycler.held_bytes()
            recycler.forget()
