"""How long each of several ways to do the same takes: warmed up, interleaved, the median and the fastest of many.

On a GPU a short one is timed as a chain of runs, each on an input that the one before it has touched: one run alone
would mostly measure how long it takes to get there, and runs that do not wait for each other overlap.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from statistics import median
from typing import NamedTuple, TypeVar

import mlx.core as mx

_SLICE = 5e-3
"""Seconds that a chain should take."""
_BUDGET = 2.0
"""Seconds for the rounds of all ways together."""
_LEAST_ROUNDS, _MOST_ROUNDS = 5, 25
_HOPELESS = 2.0
"""Ways that take so many times as long as the best one are not timed any further."""

clock = time.perf_counter

Name = TypeVar("Name", bound=Hashable)
Run = Callable[[mx.array], Sequence[mx.array]]


class Seconds(NamedTuple):
    """Of one run: what is usual, and what it takes where nothing else disturbs it."""

    median: float
    fastest: float


def race(ways: Mapping[Name, Run], x: mx.array) -> dict[Name, Seconds]:
    """How long each way takes on input `x`; the first way is the one that others are compared with."""
    for run in ways.values():
        _seconds(run, x, 1)
    rough = {name: min(_seconds(run, x, 1) for _ in range(2)) for name, run in ways.items()}
    best = min(rough.values())
    first = next(iter(ways))
    close = {name: run for name, run in ways.items() if name == first or rough[name] <= _HOPELESS * best}
    length = min(max(int(_SLICE / max(best, 1e-9)), 1), _max_chain())
    of_a_round = length * sum(rough[name] for name in close)
    rounds = min(max(int(_BUDGET / max(of_a_round, 1e-9)), _LEAST_ROUNDS), _MOST_ROUNDS)
    times: dict[Name, list[float]] = {name: [] for name in close}
    for _ in range(rounds):
        for name, run in close.items():
            times[name].append(_seconds(run, x, length) / length)
    given_up = {name: Seconds(rough[name], rough[name]) for name in ways if name not in close}
    return given_up | {name: Seconds(median(times[name]), min(times[name])) for name in close}


def _max_chain() -> int:
    return 32 if mx.default_device().type == mx.DeviceType.gpu else 1


def _seconds(run: Run, x: mx.array, length: int) -> float:
    """Of a chain of runs."""
    start = clock()
    results = run(x)
    for _ in range(length - 1):
        x = _touched(x, results)
        results = run(x)
    mx.eval(results)
    return clock() - start


def _touched(x: mx.array, results: Sequence[mx.array]) -> mx.array:
    """`x` with its first element from each of `results`: whoever reads it waits for them."""
    x = copy.copy(x)
    for result in results:
        x[(0,) * x.ndim] = result[(0,) * result.ndim].astype(x.dtype)
    return x
