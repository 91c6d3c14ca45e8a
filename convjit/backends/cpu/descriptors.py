"""What the memory of an MLX array tells that its interface does not, found by experiment.

An `mx.array` object holds a shared pointer to its descriptor, and that one to the data, which views share. Beside each
lies a block that counts its owners: other array objects, graphs that are not evaluated yet, work that MLX has not
finished. The descriptor also lists the arrays that it is to be computed from. None of it is documented for us, so the
places are found by what changes when owners come and go and when arrays are evaluated, reading memory in a way that
cannot fault. Where nothing behaves as it should, none is found, and convjit does without.
"""

from __future__ import annotations

import copy
import ctypes
import itertools
import os
import sys
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import mlx.core as mx

from convjit.guards.words import AFTER_HEADER

_WORD = 8
_COUNT = 8
"""Where a shared pointer's block counts owners, in libstdc++: behind its table of virtual functions."""
_DESCRIPTOR_WORDS = 64
"""How far to search."""
_ARRAY_BYTES = 16
"""Of an array in a list of MLX's: a shared pointer."""


class Layout(NamedTuple):
    """Where an array and its descriptor keep things, in words.

    Attributes:
        descriptor: of the array: the pointer to its descriptor.
        data: the pointer to the block that counts the owners of the data; 0 without data.
        inputs: the beginning of the list of the arrays that it is computed from; then comes its end.
    """

    descriptor: int
    data: int
    inputs: int


class UseCounts(NamedTuple):
    """Addresses of the 32-bit counts of an evaluated array: owners of its descriptor, and of its data."""

    descriptor: int
    data: int


def use_counts(array: mx.array) -> UseCounts | None:
    """Where the owners of this evaluated array are counted; None where that cannot be told."""
    found = layout()
    if found is None:
        return None
    descriptor, block = _pointer(array)
    return UseCounts(block + _COUNT, _word(descriptor + found.data * _WORD) + _COUNT)


@cache
def layout() -> Layout | None:
    """The layout of this MLX's descriptors; None where it cannot be found, or threads of Python run at once."""
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        return None
    try:
        with _Memory() as memory:
            found = [_Experiment(memory, shape) for shape in ((3, 5), (2, 3, 4))]
            data = set.intersection(*(e.data_offsets() for e in found))
            inputs = set.intersection(*(e.input_offsets() for e in found))
    except OSError:  # not Linux
        return None
    if len(data) != 1 or len(inputs) != 1:
        return None
    return Layout(AFTER_HEADER // _WORD, data.pop(), inputs.pop())


def _word(address: int) -> int:
    return ctypes.c_uint64.from_address(address).value


def _pointer(array: mx.array) -> tuple[int, int]:
    """The two words of the shared pointer to the descriptor."""
    at = id(array) + AFTER_HEADER
    return _word(at), _word(at + _WORD)


class _Memory:
    """The memory of this process, read without a fault: what cannot be read is None."""

    def __enter__(self) -> _Memory:
        self._file = os.open("/proc/self/mem", os.O_RDONLY)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def number(self, address: int, size: int) -> int | None:
        try:
            read = os.pread(self._file, size, address)
        except (OSError, OverflowError):
            return None
        return int.from_bytes(read, "little") if len(read) == size else None


class _Experiment:
    """Offsets, in words, at which the descriptors of arrays of one shape behave as those that are searched."""

    def __init__(self, memory: _Memory, shape: tuple[int, ...]):
        self._memory, self._shape = memory, shape

    def _array(self) -> mx.array:
        array = mx.zeros(self._shape)
        mx.eval(array)
        return array

    def data_offsets(self) -> set[int]:
        array = self._array()
        descriptor, block = _pointer(array)
        if self._while_owners_change(array, block) != [1, 2, 3, 2, 1]:
            return set()
        blocks = {n: self._memory.number(descriptor + n * _WORD, _WORD) for n in range(_DESCRIPTOR_WORDS)}
        return {
            n
            for n, at in blocks.items()
            if at and self._count(at) == 1 and self._while_views_change(array, at) == [1, 2, 3, 2, 1]
        }

    def input_offsets(self) -> set[int]:
        array = self._array()
        for_unary, for_binary = mx.abs(array), array + self._array()
        lengths = [self._lengths(a) for a in (array, for_unary, for_binary)]
        mx.eval(for_unary, for_binary)
        lengths += [self._lengths(a) for a in (for_unary, for_binary)]
        expected = [0, _ARRAY_BYTES, 2 * _ARRAY_BYTES, 0, 0]
        return {n for n, found in enumerate(zip(*lengths, strict=True)) if list(found) == expected}

    def _count(self, block: int) -> int | None:
        return self._memory.number(block + _COUNT, 4)

    def _lengths(self, array: mx.array) -> list[int | None]:
        """At each word: what follows it less it, as for the end and the beginning of a list."""
        descriptor, _ = _pointer(array)
        words = [self._memory.number(descriptor + n * _WORD, _WORD) for n in range(_DESCRIPTOR_WORDS + 1)]
        return [None if a is None or b is None else b - a for a, b in itertools.pairwise(words)]

    def _while_owners_change(self, array: mx.array, block: int) -> list[int | None]:
        seen = [self._count(block)]
        other = copy.copy(array)
        seen.append(self._count(block))
        later = other + 1.0
        seen.append(self._count(block))
        del other
        seen.append(self._count(block))
        mx.eval(later)
        return [*seen, self._count(block)]

    def _while_views_change(self, array: mx.array, block: int) -> list[int | None]:
        other = copy.copy(array)
        seen = [self._count(block)]
        view = array.reshape(-1)
        mx.eval(view)
        seen.append(self._count(block))
        part = array[1:]
        mx.eval(part)
        seen.append(self._count(block))
        del view, other
        seen.append(self._count(block))
        del part
        return [*seen, self._count(block)]


def knows_tracers(is_plain: Callable[[mx.array], object]) -> bool:
    """Is `is_plain`, see `cj_is_plain`, right of arrays under each of MLX's transformations, evaluated or not?

    Takes 10 ms.
    """
    seen: list[object] = []

    def look(x: mx.array) -> mx.array:
        seen.append(is_plain(x))
        return x * 1.0

    def evaluate_and_look(x: mx.array) -> mx.array:
        mx.eval(x)
        return look(look(x)).sum()

    x = mx.zeros((2, 2))
    mx.eval(x)
    transformed: list[Callable[[], Any]] = [
        lambda: mx.grad(evaluate_and_look)(x),
        lambda: mx.grad(lambda x: look(x).sum())(x),
        lambda: mx.jvp(look, [x], [x]),
        lambda: mx.vmap(look)(x),
        lambda: mx.vmap(mx.grad(lambda x: look(x).sum()))(x),
        lambda: mx.grad(lambda x: mx.vmap(look)(x).sum())(x),
        lambda: mx.grad(lambda x: mx.checkpoint(look)(x).sum())(x),
        lambda: mx.compile(look)(x),
    ]
    for run in transformed:
        run()
    is_right = is_plain(x) and not is_plain(x + 1.0) and not any(seen)
    return bool(is_right) and len(seen) >= len(transformed)
