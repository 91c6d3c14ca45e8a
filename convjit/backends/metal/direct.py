"""The weight of `metal/direct.metal`."""

from __future__ import annotations

import mlx.core as mx

from convjit.geometry import Window
from convjit.schedule import Schedule


def pack(window: Window, schedule: Schedule, weight: mx.array) -> mx.array:
    """`weight` as (*kernel, C / groups, O), mirrored if the window says so: lanes read neighbouring channels."""
    spatial = tuple(range(1, 1 + window.rank))
    if window.flip:
        weight = weight[(slice(None), *(slice(None, None, -1) for _ in spatial))]
    return mx.contiguous(mx.transpose(weight, (*spatial, window.rank + 1, 0)))
