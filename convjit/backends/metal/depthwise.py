"""The weight of `metal/depthwise.metal`."""

from __future__ import annotations

import mlx.core as mx

from convjit.geometry import Window
from convjit.schedule import Schedule
from convjit.schedule.phases import phases_of_axes


def pack(window: Window, schedule: Schedule, weight: mx.array) -> mx.array:
    """`weight` as (*taps, O): along each axis the taps of one phase after the other, in the order of the input."""
    weight = mx.moveaxis(weight[..., 0], 0, -1)
    for axis, phases in enumerate(phases_of_axes(window, weight.shape[:-1])):
        taps = [tap for phase in phases for tap in phase.taps]
        if taps != list(range(weight.shape[axis])):
            weight = mx.take(weight, mx.array(taps), axis=axis)
    return mx.contiguous(weight)
