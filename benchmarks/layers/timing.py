"""Engines timed beside each other: what slows the machine down slows them all."""

from __future__ import annotations

import gc
import os
import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

PAUSE = 0.03
"""Seconds between two engines: the threads of one stop spinning before the next is measured."""

TURN = 0.02
"""Seconds for which an engine is called again and again."""

WARM = 0.005
"""Seconds of calls that go before and are not counted."""

WATCH = 0.02
"""Seconds of each round for which the clock is watched: a host that takes time away from its guests may not say so."""

GAP = 1e-4
"""Seconds between two looks at the clock, for which this thread cannot have been running."""

Name = TypeVar("Name", bound=Hashable)


class Times(NamedTuple, Generic[Name]):
    """Attributes:
    seconds: of a call, by name.
    others: CPUs that other processes, or other guests of the host, kept busy meanwhile.
    """

    seconds: dict[Name, float]
    others: float


def interleaved(calls: Mapping[Name, Callable[[], object]], rounds: int) -> Times[Name]:
    """The median over rounds of the median of a turn, for each call.

    In every round each gets one turn; the order rotates, so that none always follows the same one.
    """
    names = list(calls)
    medians: dict[Name, list[float]] = {name: [] for name in names}
    lost: list[float] = []
    gc.collect()
    gc.disable()
    start, busy, own = time.perf_counter(), _busy_seconds(), time.process_time()
    try:
        for number in range(rounds):
            first = number % len(names)
            lost.append(_lost_share())
            for name in names[first:] + names[:first]:
                time.sleep(PAUSE)
                medians[name].append(_turn(calls[name]))
    finally:
        gc.enable()
    others = ((_busy_seconds() - busy) - (time.process_time() - own)) / (time.perf_counter() - start)
    return Times(
        {name: statistics.median(found) for name, found in medians.items()},
        max(others, statistics.mean(lost)),
    )


def few_calls(call: Callable[[], object]) -> float:
    """Seconds of a call that takes so long that once is enough; the median of three where it is quick."""
    seconds: list[float] = []
    while not seconds or (len(seconds) < 3 and sum(seconds) < 0.5):
        seconds.append(_timed(call))
    return statistics.median(seconds)


def _lost_share() -> float:
    """Of the time for which the clock is watched: when this thread was not running."""
    start = last = time.perf_counter()
    lost = 0.0
    while last < start + WATCH:
        now = time.perf_counter()
        if now - last > GAP:
            lost += now - last
        last = now
    return lost / (last - start)


def _busy_seconds() -> float:
    """For which all CPUs together were not idle, since the machine started; 0 where there is no /proc/stat."""
    file = Path("/proc/stat")
    if not file.exists():
        return 0.0
    user, nice, system, _, _, irq, softirq, steal, *_ = map(int, file.read_text().split("\n", 1)[0].split()[1:])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


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
