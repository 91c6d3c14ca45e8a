"""How many hold an MLX array: the words of memory that count it, found by experiment.

An `mx.array` object holds a shared pointer to its descriptor, and that one to the data, which views share. Beside each
lies a block that counts its owners: other array objects, graphs that are not evaluated yet, work that MLX has not
finished. None of it is documented for us, so the places are found by what changes when owners come and go, reading
memory in a way that cannot fault; where nothing behaves like a count there is none.
"""

from __future__ import annotations

import copy
import ctypes
import os
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import mlx.core as mx

_DESCRIPTOR = 24
"""Where an array object keeps its shared pointer to the descriptor: behind the header and one other word."""
_WORD = 8
_COUNT = 8
"""Where a shared pointer's block counts owners, in libstdc++: behind its table of virtual functions."""
_DESCRIPTOR_WORDS = 64
"""How far to search for the descriptor's pointer to the data."""


class UseCounts(NamedTuple):
    """Addresses of the 32-bit counts of an evaluated array: owners of its descriptor, and of its data."""

    descriptor: int
    data: int


def use_counts(array: mx.array) -> UseCounts | None:
    """Where the owners of this evaluated array are counted; None where that cannot be told."""
    offset = _data_offset()
    if offset is None:
        return None
    descriptor, block = _descriptor(array)
    return UseCounts(block + _COUNT, _word(descriptor + offset) + _COUNT)


def _word(address: int) -> int:
    return ctypes.c_uint64.from_address(address).value


def _descriptor(array: mx.array) -> tuple[int, int]:
    """The two words of the shared pointer to the descriptor."""
    return _word(id(array) + _DESCRIPTOR), _word(id(array) + _DESCRIPTOR + _WORD)


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


@cache
def _data_offset() -> int | None:
    """Where in a descriptor the pointer to the data's count lies, in bytes."""
    try:
        with _Memory() as memory:
            found = set(_offsets(memory, (3, 5))) & set(_offsets(memory, (2, 3, 4)))
    except OSError:  # not Linux
        return None
    return found.pop() if len(found) == 1 else None


def _offsets(memory: _Memory, shape: tuple[int, ...]) -> Iterator[int]:
    """Offsets at which something behaves like the count of the data's owners."""
    array = mx.zeros(shape)
    mx.eval(array)
    descriptor, block = _descriptor(array)
    if not _counts_descriptors(memory, array, block + _COUNT):
        return
    for offset in range(0, _DESCRIPTOR_WORDS * _WORD, _WORD):
        at = memory.number(descriptor + offset, _WORD)
        if at and memory.number(at + _COUNT, 4) == 1 and _counts_views(memory, array, at + _COUNT):
            yield offset


def _counts_descriptors(memory: _Memory, array: mx.array, at: int) -> bool:
    def read() -> int | None:
        return memory.number(at, 4)

    seen = [read()]
    other = copy.copy(array)
    seen.append(read())
    lazy = other + 1.0
    seen.append(read())
    del other
    seen.append(read())
    mx.eval(lazy)
    seen.append(read())
    return seen == [1, 2, 3, 2, 1]


def _counts_views(memory: _Memory, array: mx.array, at: int) -> bool:
    def read() -> int | None:
        return memory.number(at, 4)

    other = copy.copy(array)
    seen = [read()]
    view = array.reshape(-1)
    mx.eval(view)
    seen.append(read())
    part = array[1:]
    mx.eval(part)
    seen.append(read())
    del view, other
    seen.append(read())
    del part
    seen.append(read())
    return seen == [1, 2, 3, 2, 1]
