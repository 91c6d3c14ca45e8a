"""Weights in the order in which the templates read them."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx

from convjit.backends.metal import depthwise, direct, gemm, winograd
from convjit.geometry import Window
from convjit.schedule import Schedule


def _as_it_is(window: Window, schedule: Schedule, second: mx.array) -> mx.array:
    """The second operand of a weight gradient is no weight."""
    return second


_TEMPLATES: dict[str, Callable[[Window, Schedule, mx.array], mx.array]] = {
    "metal/depthwise.metal": depthwise.pack,
    "metal/direct.metal": direct.pack,
    "metal/grouped.metal": direct.pack,
    "metal/gemm.metal": gemm.pack,
    "metal/gather.metal": gemm.pack,
    "metal/tensor_ops.metal": direct.pack,
    "metal/weight_gradient.metal": _as_it_is,
    "metal/weight_gradient_direct.metal": _as_it_is,
    "metal/winograd": winograd.pack,
    "metal/stem.metal": gemm.pack_dense,
}


def pack(window: Window, schedule: Schedule, weight: mx.array) -> mx.array:
    """`weight` (O, *kernel, C / groups), packed for the template of `schedule`."""
    return _TEMPLATES[schedule.template](window, schedule, weight)
