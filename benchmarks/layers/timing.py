"""Engines timed beside each other: what slows the machine down slows them all."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping

PAUSE = 0.03
"""Seconds between two engines: the threads of one stop spinning before the next is measured."""

TURN = 0.02
"""Seconds for which an engine is called again and again."""

WARM = 0.005
"""Seconds of calls that go before and are not counted."""


def interleaved(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Seconds of each call, by name: the median over rounds of the median of a turn.

    In every round each gets one turn; the order rotates, so that none always follows the same one.
    """
    names = list(calls)
    medians: dict[str, list[float]] = {name: [] for name in names}
    gc.collect()
    gc.disable()
    try:
        for number in range(rounds):
            first = number % len(names)
            for name in names[first:] + names[:first]:
                time.sleep(PAUSE)
                medians[name].append(_turn(calls[name]))
    finally:
        gc.enable()
    return {name: statistics.median(found) for name, found in medians.items()}


def _turn(call: Callable[[], object]) -> float:
    """The median of calls for `TURN` seconds, at least one, after warm-up."""
    warm = 0.0
    while warm < WARM:
        warm += _timed(call)
    seconds = [_timed(call)]
    while sum(seconds) < TURN:
        seconds.append(_timed(call))
    return statistics.median(seconds)


def _timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
