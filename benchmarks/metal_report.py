"""What `benchmarks.metal_proof` has found, as Markdown: failures first, then each problem, then other schedules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import geometric_mean
from typing import Any

from convjit.schedule.metal.chip import Chip

BARS = {"f32": 1e-5, "f16": 2e-3, "bf16": 1e-2}
"""The largest difference to float64 that a kernel should have, relative to the largest magnitude."""


@dataclass(frozen=True, slots=True)
class Record:
    """One kernel.

    Attributes:
        problem, convolution, dtype, epilogue: what it computes.
        is_shrunk: was the problem made smaller?
        schedule: its template and choices.
        is_chosen: is it what convjit would run?
        failure: what is wrong with it, or "".
        bundle: the folder of its reproduction bundle, or "".
        deviation: the largest difference to float64 over the samples, relative to the largest magnitude.
        seconds: median of a run; None where it was not timed.
        mlx_seconds, compiled_seconds: of MLX's own ops, plain and under `mx.compile`; None where they do not run.
        bytes: that have to be read and written at least.
        flops: two for each multiply-add.
    """

    problem: str
    convolution: str
    is_shrunk: bool
    dtype: str
    epilogue: str
    schedule: str
    is_chosen: bool
    failure: str
    bundle: str
    deviation: float
    seconds: float | None
    mlx_seconds: float | None
    compiled_seconds: float | None
    bytes: int
    flops: int

    @classmethod
    def died(cls, problem: str, dtype: str, epilogue: str) -> Record:
        """For the case that a process was at when it ended."""
        failure = "the process ended while it ran"
        return cls(problem, "", False, dtype, epilogue, "", True, failure, "", 0.0, None, None, None, 0, 0)

    @property
    def in_short(self) -> str:
        if self.failure:
            return "WRONG"
        return "right" if self.deviation <= BARS[self.dtype] else "inexact"


def markdown(records: Sequence[Record], environment: Mapping[str, Any], chip: Chip) -> str:
    """The whole report."""
    return "\n".join(
        [*_head(records, environment, chip), *_failures(records), *_problems(records, chip), *_others(records)]
    )


def _head(records: Sequence[Record], environment: Mapping[str, Any], chip: Chip) -> Iterator[str]:
    device = environment["device"].get("device_name", "unknown device")
    where = device if environment["metal"] else f"no Metal device: simulated, schedules for {chip.name}"
    versions = f"MLX {environment['mlx']}, convjit {environment['convjit']}, Python {environment['python']}"
    yield f"# Metal proof: {where}"
    yield f"\n{environment['system']}, build {environment['build']}; {versions}\n"
    counts = {word: sum(r.in_short == word for r in records) for word in ("right", "inexact", "WRONG")}
    yield f"{len(records)} kernels: {', '.join(f'{count} {word}' for word, count in counts.items())}."
    bars = ", ".join(f"{bar:g} in {dtype}" for dtype, bar in BARS.items())
    yield f"Inexact: more than {bars} away from float64, relative to the largest magnitude.\n"
    for dtype, epilogue in dict.fromkeys((r.dtype, r.epilogue) for r in records):
        timed = [r for r in records if r.is_chosen and (r.dtype, r.epilogue) == (dtype, epilogue)]
        ratios = (
            [_ratio(r.mlx_seconds, r.seconds) for r in timed],
            [_ratio(r.compiled_seconds, r.seconds) for r in timed],
        )
        if any(ratios[0]):
            means = (f"{geometric_mean(known):.2f}x" if (known := [x for x in r if x]) else "-" for r in ratios)
            yield "- {}, {}: {} as fast as MLX, {} as fast as MLX under mx.compile (geometric means)".format(
                dtype, epilogue, *means
            )


def _failures(records: Sequence[Record]) -> Iterator[str]:
    failed = [r for r in records if r.failure]
    if not failed:
        return
    yield "\n## Failures\n"
    yield from _table(
        ("problem", "dtype", "epilogue", "schedule", "what is wrong", "bundle"),
        ((r.problem, r.dtype, r.epilogue, r.schedule, r.failure, r.bundle) for r in failed),
    )


def _problems(records: Sequence[Record], chip: Chip) -> Iterator[str]:
    yield "\n## Chosen schedules\n"
    yield f"GB/s and TFLOP/s as parts of {chip.name}'s {chip.gigabytes_per_second} and {chip.teraflops} (fp32).\n"
    columns = ("problem", "convolution", "dtype", "epilogue", "schedule", "", "error", "ms", "MLX", "mx.compile")
    yield from _table(
        (*columns, "over MLX", "over mx.compile", "GB/s", "TFLOP/s"),
        (
            (
                r.problem + (" (shrunk)" if r.is_shrunk else ""),
                *(r.convolution, r.dtype, r.epilogue, r.schedule, r.in_short, f"{r.deviation:.1e}"),
                *(_ms(r.seconds), _ms(r.mlx_seconds), _ms(r.compiled_seconds)),
                *(_times(r.mlx_seconds, r.seconds), _times(r.compiled_seconds, r.seconds)),
                _part(r.bytes / 1e9, r.seconds, chip.gigabytes_per_second),
                _part(r.flops / 1e12, r.seconds, chip.teraflops),
            )
            for r in records
            if r.is_chosen
        ),
    )


def _others(records: Sequence[Record]) -> Iterator[str]:
    others = [r for r in records if not r.is_chosen]
    if not others:
        return
    chosen = {(r.problem, r.dtype, r.epilogue): r.seconds for r in records if r.is_chosen}
    yield "\n## Other schedules\n"
    yield from _table(
        ("problem", "schedule", "", "error", "ms", "over the chosen one"),
        (
            (
                *(r.problem, r.schedule, r.in_short, f"{r.deviation:.1e}", _ms(r.seconds)),
                _times(chosen.get((r.problem, r.dtype, r.epilogue)), r.seconds),
            )
            for r in others
        ),
    )


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield f"|{'---|' * len(columns)}"
    yield from (f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows)


def _ratio(theirs: float | None, ours: float | None) -> float | None:
    return theirs / ours if theirs and ours else None


def _times(theirs: float | None, ours: float | None) -> str:
    ratio = _ratio(theirs, ours)
    return f"{ratio:.2f}x" if ratio else ""


def _ms(seconds: float | None) -> str:
    return f"{1e3 * seconds:.3g}" if seconds else ""


def _part(amount: float, seconds: float | None, peak: float) -> str:
    return f"{100 * amount / seconds / peak:.0f}%" if seconds else ""
