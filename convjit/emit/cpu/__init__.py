"""A kernel and its schedule as C: one module and one template under `templates/cpu/` for each way to compute one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from convjit.emit.cpu import (
    depthwise,
    direct,
    dot,
    elementwise,
    norm,
    pool,
    pool_gradient,
    rearrange,
    softmax,
    weight_gradient,
    winograd,
)
from convjit.emit.cpu.packing import Packing
from convjit.emit.cpu.source import Source
from convjit.geometry import Window, plain_window
from convjit.kernel import AnyKernel
from convjit.schedule import Schedule


class _Template(NamedTuple):
    source: Callable[[Any, Schedule], Source]
    packing: Callable[[Window, tuple[int, ...], Schedule], Packing] | None = None
    numbers: Callable[[Any, Schedule], list[int]] | None = None


_TEMPLATES = {
    "cpu/depthwise.c": _Template(depthwise.source, depthwise.packing),
    "cpu/direct.c": _Template(direct.source, direct.packing),
    "cpu/dot.c": _Template(dot.source, dot.packing),
    "cpu/elementwise.c": _Template(elementwise.source),
    "cpu/norm.c": _Template(norm.source),
    "cpu/pool.c": _Template(pool.source),
    "cpu/pool_gradient.c": _Template(pool_gradient.source),
    "cpu/rearrange.c": _Template(rearrange.source, numbers=rearrange.numbers),
    "cpu/softmax.c": _Template(softmax.source),
    "cpu/weight_gradient.c": _Template(weight_gradient.source),
    "cpu/winograd.c": _Template(winograd.source, winograd.packing),
}


def source(kernel: AnyKernel, schedule: Schedule) -> Source:
    """The C text of a kernel. Batch is a run-time value, so kernels that differ in it share their text."""
    return _TEMPLATES[schedule.template].source(kernel.any_batch(), schedule)


def packing(window: Window, weight: tuple[int, ...], schedule: Schedule) -> Packing | None:
    """How a kernel with this window and schedule reads a weight of shape (O, *kernel, C / groups), or a matrix (O, C),
    also one of several; None if it reads its second operand as it is."""
    if window.rank == 0:
        *_, outputs, channels = weight
        window, weight = plain_window(1), (outputs, 1, channels)
    template = _TEMPLATES[schedule.template]
    return template.packing and template.packing(window, weight, schedule)


def numbers(kernel: AnyKernel, schedule: Schedule) -> list[int] | None:
    """What the text reads ahead of all arrays, if one text does different things; None for most."""
    template = _TEMPLATES[schedule.template]
    return template.numbers and template.numbers(kernel, schedule)
