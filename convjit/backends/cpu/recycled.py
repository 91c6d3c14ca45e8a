"""Results whose memory is written again once nobody holds them any more.

An array that MLX makes costs 20 to 200 us: an evaluation, and pages that the kernel has to fetch. The result of an
earlier call of the same program has the right size, and its memory is at hand.
"""

from __future__ import annotations

import copy
import itertools
import threading
import weakref
from collections import deque
from collections.abc import Callable
from math import prod
from typing import NamedTuple

import mlx.core as mx

from convjit.backends.cpu.memory import Allocation, address_of, aligned_array, new_array
from convjit.backends.cpu.use_counts import UseCounts, use_counts
from convjit.kernel import DTYPES

_PER_RESULT = 2
"""Arrays kept of each result of a program: while one is computed, its user still holds the one before."""

_PATIENCE = 16
"""Calls without a free array, after which one more is kept in place of the oldest."""

_BUDGET = 256 << 20
"""Bytes of all arrays that are kept."""

OneOwner = Callable[[int, int], int]
"""Whether a descriptor and its data have one owner, for the addresses of their counts."""


class _Kept(NamedTuple):
    array: mx.array  # users get other array objects, which are further owners
    address: int
    counts: UseCounts


class Recycler:
    """Makes the arrays of one result of a program, of one shape and storage type, uninitialised."""

    def __init__(self, shape: tuple[int, ...], dtype: str, one_owner: OneOwner):
        self._shape, self._dtype = shape, dtype
        self._one_owner = one_owner
        self._bytes = prod(shape) * DTYPES[dtype]
        self._kept: deque[_Kept] = deque(maxlen=_PER_RESULT)
        self._used = next(_clock)
        self._missed = 0
        _recyclers.add(self)

    def __call__(self) -> Allocation:
        self._used = next(_clock)
        kept = self._take() or self._added()
        if kept is None:
            return new_array(self._shape, self._dtype)

        def finished() -> mx.array:
            array = copy.copy(kept.array)
            self._kept.append(kept)  # only now that it has a further owner
            return array

        return kept.address, finished

    def _take(self) -> _Kept | None:
        """An array that has no other owner. It is looked at when no other thread can take it any more."""
        for _ in range(len(self._kept)):
            try:
                kept = self._kept.popleft()
            except IndexError:
                return None
            if self._one_owner(*kept.counts):
                return kept
            self._kept.append(kept)
        return None

    def _added(self) -> _Kept | None:
        """A new array to keep; none for most calls whose user holds on to every result."""
        self._missed += 1
        if not 0 < self._bytes <= _BUDGET:
            return None
        if self._missed > _PER_RESULT and self._missed % _PATIENCE:
            return None
        array = aligned_array(self._shape, self._dtype)
        counts = use_counts(array)
        if counts is None:
            return None
        _make_room(self._bytes)
        return _Kept(array, address_of(array), counts)

    def held_bytes(self) -> int:
        return len(self._kept) * self._bytes

    def last_used(self) -> int:
        return self._used

    def clear(self) -> None:
        self._kept.clear()


_clock = itertools.count()
_recyclers: weakref.WeakSet[Recycler] = weakref.WeakSet()
_lock = threading.Lock()


def _make_room(needed: int) -> None:
    """Have those that were not used for the longest time give up what they keep."""
    with _lock:
        excess = sum(r.held_bytes() for r in _recyclers) + needed - _BUDGET
        for recycler in sorted(_recyclers, key=Recycler.last_used):
            if excess <= 0:
                return
            excess -= recycler.held_bytes()
            recycler.clear()
