"""Weights in the order in which CPU kernels read them."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from math import ceil, prod

import mlx.core as mx

from convjit.backends.cpu.memory import allocator, borrow
from convjit.backends.cpu.runtime import PackingOrder, Runtime
from convjit.geometry import Window
from convjit.schedule import Schedule
from convjit.schedule.phases import kernel_elements, phases


def int_choice(schedule: Schedule, name: str) -> int:
    value = schedule[name]
    assert isinstance(value, int)
    return value


@dataclass(frozen=True, slots=True)
class Packing:
    """The order of a packed weight: [phase][group][block of outputs][tap][channel][output].

    Attributes:
        taps: for each phase, where its taps lie in the flattened kernel.
        groups: how many groups are packed apart; 1 for a depthwise kernel, whose vectors run across its groups.
        block_width: outputs in a block.
        last_width: outputs in the last block of a group, those that only fill up a vector included.
        group_width: outputs of all blocks of a group.
        floats: how many there are in all.
    """

    taps: tuple[tuple[int, ...], ...]
    groups: int
    block_width: int
    last_width: int
    group_width: int
    floats: int


def packing(window: Window, weight: tuple[int, ...], schedule: Schedule) -> Packing:
    """How a kernel with this window and schedule reads a weight of shape (O, *kernel, C / groups)."""
    out_channels, *kernel, group_channels = weight
    taps = tuple(tuple(kernel_elements(phase, tuple(kernel))) for phase in phases(window, tuple(kernel)))
    if schedule.template == "cpu/depthwise.c":
        return Packing(taps, 1, out_channels, out_channels, out_channels, sum(map(len, taps)) * out_channels)
    lanes, vectors = int_choice(schedule, "lanes"), int_choice(schedule, "vectors")
    needed = ceil(out_channels / window.groups / lanes)
    last = (needed - 1) % vectors + 1
    floats = sum(map(len, taps)) * window.groups * needed * lanes * group_channels
    return Packing(taps, window.groups, vectors * lanes, last * lanes, needed * lanes, floats)


def pack(window: Window, schedule: Schedule, weight: mx.array, runtime: Runtime) -> mx.array:
    """`weight` (O, *kernel, C / groups), packed: single precision, one axis."""
    order = packing(window, weight.shape, schedule)
    out_channels, *kernel, group_channels = weight.shape
    source, held = borrow(weight.astype(mx.float32))
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
