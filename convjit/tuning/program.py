"""The kernels of a captured function, measured; and the table that tells of it."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from convjit.reporting.progress import tuning_progress
from convjit.reporting.report import PLAIN, table
from convjit.tuning import known
from convjit.tuning.known import milliseconds

if TYPE_CHECKING:
    from convjit.backends import Backend
    from convjit.kernel import Kernel
    from convjit.options import Options
    from convjit.tracing.capture import Capture
    from convjit.tuning.known import Outcome


@dataclass(frozen=True, slots=True)
class Row:
    """One kernel that was measured.

    Attributes:
        layer: the first convolution that it runs.
        convolution: its shapes and window, in words.
        kernel: what runs from now on: the template and its choices, or "plain MLX".
        before: seconds of what would have run without any measurement.
        seconds: of what runs now.
        own_op: seconds of MLX's own op with what was fused into the kernel behind it; None if it was not measured.
        ways: how many ways were measured.
    """

    layer: str
    convolution: str
    kernel: str
    before: float
    seconds: float
    own_op: float | None
    ways: int


@dataclass(frozen=True, slots=True)
class Tuning:
    """What `tune` returns: `str` is a table.

    Attributes:
        name: the compiled function.
        rows: one for each kernel that was measured, in the order of the program; those that are not there run as
            before, because none of their candidates is right here, or the function runs as plain MLX.
    """

    name: str
    rows: tuple[Row, ...]

    def __str__(self) -> str:
        if not self.rows:
            return f"{self.name}: no kernel was measured: it runs as plain MLX, as explain tells, or CONVJIT_TUNE is 0"
        before, after = (sum(seconds) for seconds in zip(*((r.before, r.seconds) for r in self.rows), strict=True))
        changed = sum(r.seconds != r.before for r in self.rows)
        titles = ("layer", "convolution", "ms before", "ms now", "ms MLX", "ways", "kernel")
        change = f"{milliseconds(before)} -> {milliseconds(after)} ms"
        lines = [f"{self.name}: measured {len(self.rows)} kernels, changed {changed}: {change}"]
        return "\n".join(lines + table(titles, [_cells(row) for row in self.rows]))


def _cells(row: Row) -> tuple[str, ...]:
    own_op = "" if row.own_op is None else milliseconds(row.own_op)
    return (
        row.layer,
        row.convolution,
        milliseconds(row.before),
        milliseconds(row.seconds),
        own_op,
        str(row.ways),
        row.kernel,
    )


_measured: ContextVar[list[Row] | None] = ContextVar("_measured", default=None)
"""Inside `collected`: the rows so far."""


@contextmanager
def collected() -> Generator[list[Row]]:
    """Every kernel that is compiled inside is measured anew; gives the rows, as they come."""
    rows: list[Row] = []
    token = _measured.set(rows)
    try:
        yield rows
    finally:
        _measured.reset(token)


def tune_if_wanted(name: str, captured: Capture, options: Options, backend: Backend) -> None:
    """Measure the kernels of a captured function before it is compiled: all inside `collected`, else those that are new
    here, if the options or the environment ask for it."""
    rows = _measured.get()
    if known.is_off():
        return
    if rows is not None:
        rows += _measure(name, captured, options, backend, anew=True)
    elif options.tune or known.is_wanted():
        new = _measure(name, captured, options, backend, anew=False)
        if new and sys.stderr.isatty():
            sys.stderr.write(f"{Tuning(name, tuple(new))}\n")


def _measure(name: str, captured: Capture, options: Options, backend: Backend, *, anew: bool) -> list[Row]:
    """Measure until all kernels of the program are known: one that stays plain MLX may leave others different ones."""
    from convjit.lower import lower
    from convjit.tuning.measure import measure

    rows: list[Row] = []
    done: set[str] = set()
    while True:
        with known.ignored() if anew and not done else nullcontext():
            lowered = lower(captured, backend.name, options, None)
        new: dict[str, tuple[str, Kernel]] = {}
        for layer, kernel, _ in lowered.kernels():
            if repr(kernel) not in done and (anew or known.find(backend, kernel) is None):
                new.setdefault(repr(kernel), (layer, kernel))
        if not new:
            return rows
        with tuning_progress(name) as progress:
            for number, (layer, kernel) in enumerate(new.values()):
                progress(number, len(new))
                if outcome := measure(backend, layer, kernel):
                    known.keep(backend, kernel, outcome)
                    rows.append(_row(layer, kernel, outcome))
        done |= new.keys()


def _row(layer: str, kernel: Kernel, outcome: Outcome) -> Row:
    chosen = outcome.chosen
    return Row(
        layer,
        kernel.geometry.in_words(batch=True),
        chosen.schedule.in_words() if chosen.schedule else PLAIN,
        outcome.first.seconds,
        chosen.seconds,
        outcome.plain.seconds if outcome.plain else None,
        len(outcome.timings),
    )
