"""What the launches of a schedule do: bytes, multiply-adds, threadgroups. Counted by arithmetic, without running.

The numbers are those that the simulator counts (`simulator.Counters`): every access of every thread. One module for
each way to convolve.
"""

from __future__ import annotations

from collections.abc import Callable

from convjit.kernel import Kernel
from convjit.schedule import Schedule
from convjit.schedule.metal.winograd import TEMPLATE as WINOGRAD
from convjit.schedule.metal.work import depthwise, direct, grouped, matrices, winograd
from convjit.schedule.metal.work.launch import Work

__all__ = ["Work", "work"]

_TEMPLATES: dict[str, Callable[[Kernel, Schedule], tuple[Work, ...]]] = {
    "metal/depthwise.metal": depthwise.work,
    "metal/direct.metal": direct.work,
    "metal/gather.metal": matrices.gather,
    "metal/gemm.metal": matrices.gemm,
    "metal/grouped.metal": grouped.work,
    "metal/stem.metal": matrices.stem,
    WINOGRAD: winograd.work,
}


def work(kernel: Kernel, schedule: Schedule) -> tuple[Work, ...]:
    """One `Work` for each launch, in order.

    Raises:
        KeyError: for a template that nobody counts.
    """
    return _TEMPLATES[schedule.template](kernel, schedule)
