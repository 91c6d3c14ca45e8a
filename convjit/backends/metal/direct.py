"""The weight of `metal/direct.metal`."""

from __future__ import annotations

import mlx.core as mx

from convjit.geometry import Window
from convjit.schedule import Schedule


def pack(window: Window, schedule: Schedule, weight: mx.array) -> mx.array:
    """`weight` as (*kernel, C / groups, O), mirrored if the window says so: lanes read neighbouring channels."""
    return mx.contiguous(mx.transpose(mirrored(window, weight), (*range(1, window.rank + 2), 0)))


def mirrored(window: Window, weight: mx.array) -> mx.array:
    """`weight` (O, *kernel, C / groups) with its spatial axes reversed, if the window flips them."""
    return weight[(slice(None), *(slice(None, None, -1),) * window.rank)] if window.flip else weight
