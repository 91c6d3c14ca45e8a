"""Schedules of `metal/direct.metal`, which takes every kernel."""

from __future__ import annotations

from convjit.kernel import Kernel
from convjit.schedule import Schedule

THREADS = 128
"""Of a threadgroup. More than 32, whose pipelines have a barrier bug; few enough for many registers."""


def direct(kernel: Kernel) -> Schedule:
    """Channels a thread, and the threads of a threadgroup along channel blocks (`lanes`) and along pixels."""
    geometry = kernel.geometry
    per_group = geometry.out_channels // geometry.window.groups
    channels = next(n for n in (4, 3, 2, 1) if per_group % n == 0)
    blocks = geometry.out_channels // channels
    lanes = min(32, 1 << (blocks - 1).bit_length())
    return Schedule("metal/direct.metal", (("channels", channels), ("lanes", lanes), ("pixels", THREADS // lanes)))
