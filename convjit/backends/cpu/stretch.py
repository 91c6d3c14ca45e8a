"""A stretch as one C call: where each value lies, and the Python function that makes the call."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from math import prod
from operator import is_
from typing import NamedTuple

import mlx.core as mx

from convjit.backends import Call, Expected, QuickCall, Stretch
from convjit.backends.cpu.footprint import Footprint, footprint
from convjit.backends.cpu.memory import borrow
from convjit.backends.cpu.quick import Run
from convjit.backends.cpu.recycled import Recycler
from convjit.backends.cpu.runtime import ABSOLUTE, Place, Runtime, Step
from convjit.kernel import DTYPES

_ALIGNMENT = 64

KernelCode = Callable[[Call], int]
"""The address of a call's `cj_kernel`."""


def arena_offsets(lifetimes: Sequence[tuple[int, int]], sizes: Sequence[int]) -> tuple[list[int], int]:
    """Offsets for values in one piece of memory, largest first, each as low as it goes; and how long the piece is.

    Args:
        lifetimes: the step that writes each value and the last one that reads it. Two values may share memory only
            if one was read for the last time before the other is written.
        sizes: in bytes.
    """
    offsets = [0] * len(sizes)
    placed: list[int] = []
    for value in sorted(range(len(sizes)), key=lambda v: -sizes[v]):
        first, last = lifetimes[value]
        offset = 0
        for other in sorted(placed, key=lambda v: offsets[v]):
            apart = lifetimes[other][1] < first or last < lifetimes[other][0]
            if not apart and offsets[other] < offset + sizes[value]:
                offset = max(offset, _aligned(offsets[other] + sizes[other]))
        offsets[value] = offset
        placed.append(value)
    return offsets, max((_aligned(offsets[v] + sizes[v]) for v in placed), default=0)


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGNMENT) * _ALIGNMENT


class StretchRunner:
    """Runs a stretch: its input arrays in, its output arrays out, one C call between."""

    def __init__(self, stretch: Stretch, runtime: Runtime, code: KernelCode):
        self._runtime = runtime
        self._outputs = stretch.outputs
        self._num_inputs = stretch.num_inputs
        footprints = list(map(footprint, stretch.calls))
        self._input_bytes = _input_bytes(stretch, footprints)
        self._prepared = sorted(stretch.prepared)
        self._changing = [n for n in range(stretch.num_inputs) if n not in stretch.prepared]
        self._made = list(dict.fromkeys(v for v in stretch.outputs if v >= stretch.num_inputs))
        results = _results(stretch, footprints)
        self._allocators = [Recycler(*results[value], runtime.quick) for value in self._made]
        self._poisoned = stretch.poisoned
        self._made_bytes = [_bytes(*results[value]) for value in self._made]
        bases, offsets, self._result_bytes = _lay_out(stretch, self._made, results)
        self._steps = (Step * len(stretch.calls))()
        self._tables: list[object] = []  # keeps alive what the steps point to
        self._threads = 1
        for step, call, taken in zip(self._steps, stretch.calls, footprints, strict=True):
            values = [*call.inputs, *call.results]
            places = [(bases[v], offsets[v], batch) for v, batch in zip(values, taken.batch_steps, strict=True)]
            if taken.numbers is not None:
                self._tables.append(taken.numbers)
                places = [(ABSOLUTE, ctypes.addressof(taken.numbers), 0), *places]
            table = (Place * len(places))(*places)
            self._tables.append(table)
            step.kernel, step.places, step.num_places = code(call), table, len(table)
            step.threads = min(runtime.threads, taken.threads)
            if step.threads > 1:
                self._threads = runtime.threads
            step.batch, step.in_extent, step.out_extent = taken.extents
        self._kept: _Kept | None = None

    def __call__(self, inputs: Sequence[mx.array]) -> list[mx.array]:
        kept = self._kept
        if kept is None or not all(map(is_, map(inputs.__getitem__, self._prepared), kept.inputs)):
            kept = self._kept = self._keep(inputs)
        arrays = type(kept.addresses).from_buffer_copy(kept.addresses)
        held = [self._borrow(number, inputs[number]) for number in self._changing]
        for number, (address, _) in zip(self._changing, held, strict=True):
            arrays[number] = address
        made = [allocate() for allocate in self._allocators]
        for number, (address, _) in enumerate(made, self._num_inputs):
            arrays[number] = address
        if self._poisoned:
            for (address, _), size in zip(made, self._made_bytes, strict=True):
                ctypes.memset(address, 0xFF, size)
        if self._runtime.run(self._steps, len(self._steps), arrays, self._result_bytes, self._threads):
            raise MemoryError(f"no memory for the {self._result_bytes} bytes of intermediate results of a stretch")
        values = {value: finished() for value, (_, finished) in zip(self._made, made, strict=True)}
        return [values[v] if v in values else inputs[v] for v in self._outputs]

    def quick_call(self, expected: Expected, inputs: Sequence[int | mx.array]) -> QuickCall | None:
        if self._poisoned or self._outputs != tuple(self._made) or len(self._made) != 1:
            return None
        table = (ctypes.c_void_p * (self._num_inputs + 1))()
        examples = [a for a in expected.arguments if isinstance(a, mx.array)]
        places = [-1] * len(examples)
        held: list[object] = []
        for number, given in enumerate(inputs):
            if isinstance(given, mx.array):
                table[number], holder = self._borrow(number, given)
                held.append(holder)
            elif places[given] >= 0 or self._input_bytes[number] not in (None, examples[given].nbytes):
                return None
            else:
                places[given] = number
        (recycler,) = self._allocators
        run = Run(
            *(self._steps, self._threads, self._result_bytes),
            *(table, recycler.results, self._num_inputs),
            held=(self, *held),
        )
        return self._runtime.quick.call(expected, run, places)

    def _borrow(self, number: int, array: mx.array) -> tuple[int, object]:
        size = self._input_bytes[number]
        if size is not None and array.nbytes != size:
            raise ValueError(f"input {number} of a stretch holds {size} bytes, got shape {array.shape}")
        return borrow(array)

    def _keep(self, inputs: Sequence[mx.array]) -> _Kept:
        addresses = (ctypes.c_void_p * (self._num_inputs + len(self._made)))()
        held: list[object] = []
        for number in self._prepared:
            addresses[number], holder = self._borrow(number, inputs[number])
            held.append(holder)
        return _Kept([inputs[number] for number in self._prepared], addresses, held)


class _Kept(NamedTuple):
    """The prepared inputs of the last call: as nobody writes into them, their addresses are looked up once.

    Attributes:
        inputs: the arrays.
        addresses: a table of all arrays of a call with the prepared ones filled in.
        held: what keeps the elements where they are.
    """

    inputs: list[mx.array]
    addresses: ctypes.Array[ctypes.c_void_p]
    held: list[object]


_Array = tuple[tuple[int, ...], str]
"""Shape and dtype."""


def _results(stretch: Stretch, footprints: Sequence[Footprint]) -> dict[int, _Array]:
    """What each call writes."""
    return {
        value: (shape, dtype)
        for call, taken in zip(stretch.calls, footprints, strict=True)
        for value, shape, dtype in zip(call.results, taken.result_shapes, call.kernel.result_dtypes, strict=True)
    }


def _bytes(shape: tuple[int, ...], dtype: str) -> int:
    return prod(shape) * DTYPES[dtype]


def _lay_out(
    stretch: Stretch, made: Sequence[int], results: Mapping[int, _Array]
) -> tuple[dict[int, int], dict[int, int], int]:
    """The base and the offset of every value, as `Place` has them, and the bytes of the arena."""
    bases = {value: 1 + value for value in range(stretch.num_inputs)}
    bases.update({value: 1 + stretch.num_inputs + n for n, value in enumerate(made)})
    lifetimes: dict[int, tuple[int, int]] = {}
    sizes: dict[int, int] = {}
    for number, call in enumerate(stretch.calls):
        for value in (v for v in call.inputs if v in lifetimes):
            lifetimes[value] = (lifetimes[value][0], number)
        for value in (v for v in call.results if v not in bases):
            lifetimes[value] = (number, number)
            sizes[value] = _bytes(*results[value])
    inner = list(lifetimes)
    offsets, arena_bytes = arena_offsets([lifetimes[v] for v in inner], [sizes[v] for v in inner])
    in_arena = dict(zip(inner, offsets, strict=True))
    values = {*bases, *in_arena}
    return {v: bases.get(v, 0) for v in values}, {v: in_arena.get(v, 0) for v in values}, arena_bytes


def _input_bytes(stretch: Stretch, footprints: Sequence[Footprint]) -> list[int | None]:
    """How long each input must be; None for one that no kernel reads. A shorter one would be read beyond its end."""
    sizes: list[int | None] = [None] * stretch.num_inputs
    for call, taken in zip(stretch.calls, footprints, strict=True):
        for value, size in zip(call.inputs, taken.read_bytes, strict=True):
            if value < stretch.num_inputs:
                sizes[value] = size
    return sizes
