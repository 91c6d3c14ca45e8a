"""Records as lines of a terminal, as Markdown, and as a plot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from benchmarks.layers.bars import verdicts
from benchmarks.layers.record import OURS, QUIET, Record

MODES = {
    "alone": "One convolution, prepared arrays",
    "user": "As a user calls it",
    "chain": "One of nine behind each other, with different weights",
}
LARGEST_SHOWN = 10
"""Ratios beyond are marks with a number at the top of the plot."""

COLOURS = {"experiments": "tab:orange", "problems": "tab:blue"}


def lines(record: Record) -> Iterator[str]:
    """A problem in two lines or more: the speed of every engine, ours first; what else is known of our kernel."""
    ratio = f"{record.ratio:.2f}x" if record.ratio else "-"
    shrunk = " (shrunk)" if record.is_shrunk else ""
    yield f"{record.problem:16} {ratio:>6}  {record.convolution}{shrunk}, {record.mode} {record.dtype} {record.isa}"
    yield "    GFLOP/s: " + "  ".join(f"{name} {_number(record.gflops(name))}" for name in record.seconds)
    if record.others > QUIET:
        yield f"    disturbed: other processes kept {record.others:.2f} CPUs busy"
    for name, reason in record.refused.items():
        yield f"    {name}: {reason}"
    if OURS in record.seconds:
        yield f"    {record.schedule}"
        found = f", error {record.relative_error:.1e}, {record.elementwise_error:.2g} eps" if record.is_checked else ""
        yield (
            f"    {_of_peak(record)} of peak{found}, "
            f"compiled in {record.compile_seconds:.2f} s, {record.text_bytes / 1e3:.0f} kB, "
            f"weights {record.packed_ratio:.2f}x, memory {record.memory_bytes / 1024:.0f} KiB"
        )


def markdown(records: Sequence[Record], machine: Mapping[str, Any]) -> str:
    """All of them, each setting a table."""
    parts = [
        f"# Layers: {machine['cpu']}, {machine['cores']} cores\n",
        "GFLOP/s of direct convolution, bias and ReLU included in the time; the ratio is to the best peer.\n",
        *(f"- {'met' if v.met else '**missed**'}: {v.words}" for v in verdicts(records)),
    ]
    for setting in dict.fromkeys(r.setting for r in records):
        mode, dtype, isa = setting
        parts.append(f"\n## {MODES[mode]}, {dtype}{'' if isa == 'native' else ', AVX2'}\n")
        parts += _table([r for r in records if r.setting == setting])
    return "\n".join(parts) + "\n"


def _table(records: Sequence[Record]) -> Iterator[str]:
    engines = [OURS, *dict.fromkeys(name for r in records for name in [*r.seconds, *r.refused] if name != OURS)]
    head = ["problem", "convolution", "ratio", *engines, "of peak", "error", "eps", "compile s", "kB", "weights", "KiB"]
    yield from _rows(head, (_cells(r, engines) for r in records))


def _cells(r: Record, engines: Sequence[str]) -> list[str]:
    speeds = [_number(r.gflops(e)) if e in r.seconds else "-" for e in engines]
    ratio = f"{r.ratio:.2f}" if r.ratio else "-"
    cells = [r.problem + (" (shrunk)" if r.is_shrunk else ""), r.convolution, ratio, *speeds, _of_peak(r)]
    return [
        *cells,
        *((f"{r.relative_error:.1e}", f"{r.elementwise_error:.2g}") if r.is_checked else ("", "")),
        *(f"{r.compile_seconds:.2f}", f"{r.text_bytes / 1e3:.0f}"),
        *(f"{r.packed_ratio:.2f}", f"{r.memory_bytes / 1024:.0f}"),
    ]


def _rows(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    yield from (f"| {' | '.join(row)} |" for row in rows)


def plot(records: Sequence[Record], file: Path) -> None:
    """The ratio to the best peer of every problem, one convolution in float32, sorted, on a logarithmic axis.

    Without such a problem no file is written.
    """
    import matplotlib.pyplot as plt

    alone = [(r.ratio, r) for r in records if r.setting == ("alone", "f32", "native") and r.ratio]
    ranked = sorted(alone, key=lambda pair: pair[0])
    if not ranked:
        return
    figure, axes = plt.subplots(figsize=(10, 3.6), layout="constrained")
    for kind, colour in COLOURS.items():
        points = [(n, min(ratio, LARGEST_SHOWN)) for n, (ratio, r) in enumerate(ranked) if r.kind == kind]
        if points:
            mean = geometric_mean(ratio for ratio, r in ranked if r.kind == kind)
            axes.vlines([n for n, _ in points], 1, [ratio for _, ratio in points], colour, linewidth=2, alpha=0.4)
            axes.plot(
                *zip(*points, strict=True),
                "o",
                color=colour,
                markersize=4,
                label=f"{len(points)} {kind}, geometric mean {mean:.2f}",
            )
    for n, (ratio, _) in enumerate(ranked):
        if ratio > LARGEST_SHOWN:
            above = {"xytext": (0, 4), "textcoords": "offset points", "ha": "center", "fontsize": 6, "rotation": 90}
            axes.annotate(f"{ratio:.0f}x", (n, LARGEST_SHOWN), **above)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set(yscale="log", ylabel="times the speed of the best peer")
    axes.set_yticks(ticks := [0.5, 0.7, 1, 1.5, 2, 3, 5, 10], [f"{t:g}" for t in ticks])
    axes.minorticks_off()
    axes.set_xticks(range(len(ranked)), [r.problem for _, r in ranked], rotation=90, fontsize=6)
    axes.margins(x=0.01)
    axes.grid(axis="y", linewidth=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper left")
    with plt.rc_context({"svg.fonttype": "none"}):
        figure.savefig(file)
    plt.close(figure)


def _of_peak(record: Record) -> str:
    return f"{100 * record.gflops(OURS) * 1e9 / record.peak:.0f}%" if OURS in record.seconds else "-"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 20 else f"{value:.2g}"
