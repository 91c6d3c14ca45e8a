"""Weights in the order in which CPU kernels read them."""

from __future__ import annotations

import ctypes
from functools import reduce
from math import prod
from operator import add

import mlx.core as mx

from convjit.backends.cpu.memory import allocator, borrow
from convjit.backends.cpu.runtime import PackingOrder, Runtime
from convjit.bilinear import Matrix
from convjit.emit.cpu import packing
from convjit.geometry import Window
from convjit.schedule import Schedule


def pack(window: Window, schedule: Schedule, weight: mx.array, runtime: Runtime) -> mx.array:
    """`weight` (O, *kernel, C / groups), packed: single precision, one axis."""
    order = packing(window, weight.shape, schedule)
    weight = weight.astype(mx.float32)
    if order.transform:
        weight = _transformed(weight, *order.transform)
    out_channels, *kernel, group_channels = weight.shape
    source, held = borrow(weight)
    target, finished = allocator((order.floats,), "f32")()
    phase_taps = [len(taps) for taps in order.taps]
    taps = [tap for taps in order.taps for tap in taps]
    arguments = PackingOrder(
        weight=source,
        packed=target,
        taps=(ctypes.c_int * len(taps))(*taps),
        phase_taps=(ctypes.c_int * len(phase_taps))(*phase_taps),
        phases=len(phase_taps),
        kernel_taps=prod(kernel),
        channels=group_channels,
        groups=order.groups,
        group_outputs=out_channels // order.groups,
        block_width=order.block_width,
        last_width=order.last_width,
    )
    runtime.pack(ctypes.byref(arguments), runtime.threads)
    del held
    return finished()


def _transformed(weight: mx.array, axis: int, matrix: Matrix) -> mx.array:
    """`matrix` times the elements along an axis."""
    elements = mx.split(weight, weight.shape[axis], axis)
    rows = [
        reduce(add, (float(factor) * element for factor, element in zip(row, elements, strict=True) if factor))
        for row in matrix
    ]
    return mx.concatenate(rows, axis)
