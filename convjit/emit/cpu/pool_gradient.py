"""Kernel and schedule -> the text of "cpu/pool_gradient.c"."""

from __future__ import annotations

from convjit.emit.cpu.pool import in_words, name_of, windows
from convjit.emit.cpu.source import Source
from convjit.emit.render import render
from convjit.kernel import PoolGradient
from convjit.schedule import Schedule


def source(kernel: PoolGradient, schedule: Schedule) -> Source:
    """The C text of the gradient of a pool, as three loops, for any batch and outermost extent."""
    name = f"gradient_of_pool{name_of(kernel.geometry)}"
    title = f"The gradient of the greatest elements of {in_words(kernel)}"
    variables = {"name": name, "title": title, **windows(kernel), **dict(schedule.choices)}
    return Source(render("cpu/pool_gradient.c", **variables), name)
