"""Weights in the order in which CPU kernels read them."""

from __future__ import annotations

import ctypes
from functools import lru_cache
from math import prod
from typing import NamedTuple

import mlx.core as mx

from convjit.backends.cpu.memory import Allocation, aligned_array, borrow
from convjit.backends.cpu.recycled import Recycler
from convjit.backends.cpu.runtime import PackingOrder, Runtime, Term
from convjit.bilinear import Matrix
from convjit.emit.cpu import packing
from convjit.geometry import Window
from convjit.schedule import Schedule


def pack(window: Window, schedule: Schedule, weight: mx.array, runtime: Runtime) -> mx.array:
    """`weight` (O, *kernel, C / groups), packed: single precision, one axis, or bits of bf16 in pairs.

    Transforms are rounded once. What a kernel reads as it is stays as it is.
    """
    found = tables(window, schedule, weight.shape)
    return weight if found is None else _packed(found, weight, aligned_array((found.all_floats,), "f32"), runtime)


class Packer:
    """Packs weights of one shape as `pack` does, in every call of a program, into memory that it has used before."""

    def __init__(self, window: Window, schedule: Schedule, runtime: Runtime):
        self._window, self._schedule, self._runtime = window, schedule, runtime
        self._recycler: Recycler | None = None

    def __call__(self, weight: mx.array) -> mx.array:
        found = tables(self._window, self._schedule, weight.shape)
        if found is None:
            return weight
        if self._recycler is None:
            self._recycler = Recycler((found.all_floats,), "f32", self._runtime.quick)
        return _packed(found, weight, self._recycler(), self._runtime)


def _packed(found: Tables, weight: mx.array, into: Allocation, runtime: Runtime) -> mx.array:
    source, held = borrow(weight.astype(mx.float32))
    arguments = PackingOrder.from_buffer_copy(found.arguments)
    address, finished = into
    for number in range(found.weights):
        arguments.weight = source + 4 * number * (weight.size // found.weights)
        arguments.packed = address + 4 * number * found.floats
        runtime.pack(ctypes.byref(arguments), runtime.threads)
    del held
    return finished()


class Tables(NamedTuple):
    """What packing needs to know besides the weight; a train step packs its weights in every call.

    Attributes:
        floats: of a packed weight.
        weights: how many of them lie behind each other: matrices, one for each image.
        arguments: all but the weight and what it is packed into; keeps alive what it points to.
    """

    floats: int
    weights: int
    arguments: PackingOrder

    @property
    def all_floats(self) -> int:
        return self.floats * self.weights


@lru_cache(maxsize=1024)
def tables(window: Window, schedule: Schedule, shape: tuple[int, ...]) -> Tables | None:
    order = packing(window, shape, schedule)
    if order is None:
        return None
    weights = shape[0] if window.rank == 0 and len(shape) == 3 else 1
    out_channels, *kernel, group_channels = order.shape or shape[-2 if window.rank == 0 else 0 :]
    terms = [_terms(tap, tuple(kernel), order.transforms) for taps in order.taps for tap in taps]
    flat = [term for of_tap in terms for term in of_tap]
    arguments = PackingOrder(
        terms=(Term * len(flat))(*flat),
        tap_terms=(ctypes.c_int * len(terms))(*map(len, terms)),
        phase_taps=(ctypes.c_int * len(order.taps))(*map(len, order.taps)),
        phases=len(order.taps),
        kernel_taps=prod(kernel),
        channels=group_channels,
        groups=order.groups,
        group_outputs=out_channels // order.groups,
        block_width=order.block_width,
        last_width=order.last_width,
        pairs=order.pairs,
    )
    return Tables(order.floats, weights, arguments)


def _terms(tap: int, kernel: tuple[int, ...], transforms: tuple[tuple[int, Matrix], ...]) -> list[tuple[int, float]]:
    """A tap of the transformed kernel, as elements of the kernel itself and the factor of each."""
    if not transforms:
        return [(tap, 1.0)]
    matrices = dict(transforms)
    terms, inner = [(0, 1.0)], 1
    for axis in range(len(kernel), 0, -1):
        extent, matrix = kernel[axis - 1], matrices.get(axis)
        tap, row = divmod(tap, len(matrix) if matrix else extent)
        factors = enumerate(map(float, matrix[row])) if matrix else [(row, 1.0)]
        terms = [(at + element * inner, a * b) for element, b in factors if b for at, a in terms]
        inner *= extent
    return terms
