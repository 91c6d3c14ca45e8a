"""What the CPU backend must reach, and what it does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import geometric_mean
from typing import NamedTuple

from benchmarks.layers.record import MLX, OURS, Mode, Record

ELEMENTWISE = 32.0
"""Times 2^-24 and the sum of absolute products: what an output may be away from float64."""

SMALL_PACKED_BYTES = 512 << 10


@dataclass(frozen=True, slots=True)
class Verdict:
    """A figure beside its bar."""

    met: bool
    words: str

    def __str__(self) -> str:
        return f"{'ok  ' if self.met else 'MISS'} {self.words}"


def verdicts(records: Sequence[Record]) -> list[Verdict]:
    """Of whatever was measured."""
    return [
        *_ratios(records, "alone", "experiments", 2.0, 1.0),
        *_ratios(records, "alone", "problems", 1.7, 0.95),
        *_ratios(records, "chain", None, 1.4, 0.95),
        *_as_a_user(records),
        *_over_mlx(records),
        *_with_avx2(records),
        *_limits(records),
    ]


def _native(records: Sequence[Record], mode: Mode, kind: str | None = None) -> list[Record]:
    """In float32 for this CPU, those with a ratio."""
    return [
        r for r in records if r.setting == (mode, "f32", "native") and kind in (None, r.kind) and r.ratio is not None
    ]


def _ratios(records: Sequence[Record], mode: Mode, kind: str | None, bar: float, least: float) -> Iterator[Verdict]:
    found = _native(records, mode, kind)
    if not found:
        return
    what = {"alone": f"{len(found)} {kind}", "chain": f"{len(found)} chains"}[mode]
    mean = geometric_mean(_ratio(r) for r in found)
    worst = sorted(found, key=_ratio)
    below = sum(_ratio(r) < least for r in found)
    named = ", ".join(f"{_ratio(r):.2f}x {r.problem}" for r in worst[:3])
    yield Verdict(mean >= bar, f"{what}, best peer: {mean:.2f}x (bar {bar:g})")
    yield Verdict(below == 0, f"{what}: worst {named}; {below} below {least:g}x")


def _as_a_user(records: Sequence[Record]) -> Iterator[Verdict]:
    """Where the best peer takes over 100 us."""
    found = [r for r in _native(records, "user") if min(r.peers.values()) > 100e-6]
    if found:
        mean = geometric_mean(_ratio(r) for r in found)
        yield Verdict(mean >= 1.5, f"{len(found)} problems over 100 us as a user calls them: {mean:.2f}x (bar 1.5)")


def _over_mlx(records: Sequence[Record]) -> Iterator[Verdict]:
    found = [r for r in records if r.setting == ("alone", "f32", "native") and {OURS, MLX} <= set(r.seconds)]
    if found:
        mean = geometric_mean(r.seconds[MLX] / r.seconds[OURS] for r in found)
        yield Verdict(mean >= 100, f"{len(found)} problems, plain MLX: {mean:.0f}x (bar 100)")


def _with_avx2(records: Sequence[Record]) -> Iterator[Verdict]:
    found = [r for r in records if r.setting == ("alone", "f32", "avx2") and r.ratio is not None]
    if found:
        mean = geometric_mean(_ratio(r) for r in found)
        yield Verdict(
            mean >= 1.3, f"{len(found)} problems with AVX2, best of OpenVINO and PyTorch: {mean:.2f}x (bar 1.3)"
        )


class _Limit(NamedTuple):
    """An upper bar of a figure, in a unit that is `scale` times its own."""

    figure: str
    bar: float
    unit: str = ""
    scale: float = 1.0


_LIMITS = (
    _Limit("relative_error", 5e-6),
    _Limit("elementwise_error", ELEMENTWISE, " eps"),
    _Limit("memory_bytes", 8.0, " MiB a thread", 2.0**-20),
    _Limit("packed_ratio", 4.0, "x the weights"),  # of one kernel; tests hold those of whole networks below 2
    _Limit("compile_seconds", 0.2, " s"),
    _Limit("text_bytes", 200.0, " kB", 1e-3),
)


def _limits(records: Sequence[Record]) -> Iterator[Verdict]:
    """The largest of each figure that has an upper bar; small packed weights may be any multiple of the weights."""
    found = [r for r in records if r.setting == ("alone", "f32", "native") and OURS in r.seconds]
    for limit in _LIMITS:
        values = {
            r.problem: getattr(r, limit.figure) * limit.scale
            for r in found
            if limit.figure != "packed_ratio" or r.packed_bytes > SMALL_PACKED_BYTES
        }
        if not values:
            continue
        worst = max(values, key=values.__getitem__)
        above = sum(value > limit.bar for value in values.values())
        what = limit.figure.replace("_", " ")
        words = (
            f"{what}: at most {values[worst]:.2g}{limit.unit} ({worst}), {above} of {len(values)} above {limit.bar:g}"
        )
        yield Verdict(above == 0, words)


def _ratio(record: Record) -> float:
    assert record.ratio is not None
    return record.ratio
