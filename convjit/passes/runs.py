"""Indices as few evenly spaced runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

_LONGEST_PERIOD = 8
"""Of indices that repeat themselves."""


class Run(NamedTuple):
    """`length` indices, `step` apart from `first` on, each `repeat` times: those at `at`, `at + period`, ..."""

    at: int
    period: int
    first: int
    step: int
    length: int
    repeat: int


def runs_of(indices: Sequence[int]) -> list[Run]:
    """Indices as few runs. Those of a scale of 3 / 2 repeat themselves after 3."""
    by_period = ([*_runs_by(period, indices)] for period in range(1, 1 + _LONGEST_PERIOD))
    return min(by_period, key=len)


def _runs_by(period: int, indices: Sequence[int]) -> Iterator[Run]:
    for start in range(min(period, len(indices))):
        run, at = None, start
        for index, repeated in groupby(indices[start::period]):
            repeat = len(list(repeated))
            longer = run and _longer(run, index, repeat)
            if run and not longer:
                yield run
            run = longer or Run(at, period, index, 0, 1, repeat)
            at += period * repeat
        if run:
            yield run


def _longer(run: Run, index: int, repeat: int) -> Run | None:
    """The run with another index behind it, if that fits."""
    step = index - run.first if run.length == 1 else run.step
    if repeat != run.repeat or index != run.first + run.length * step:
        return None
    return run._replace(step=step, length=run.length + 1)
