"""Records and profiles as lines of a terminal, and records as a plot."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path

from benchmarks.layers.record import MLX, OURS, QUIET
from benchmarks.networks.record import Record
from benchmarks.networks.steps import Step
from convjit.reporting.report import table

LONGEST = 25
"""Lines of a profile's table of single steps."""


def lines(record: Record) -> Iterator[str]:
    """A network as a table of its engines."""
    ratio = f"{record.ratio:.2f}x the best peer, " if record.ratio else ""
    steps = f"{record.kernels} kernels and {record.plain} plain MLX ops"
    yield f"{_title(record)}, {record.flops / 1e9:.3g} GFLOP: {ratio}{steps}"
    if record.others > QUIET:
        yield f"    disturbed: other processes kept {record.others:.2f} CPUs busy"
    cells = [
        (
            name,
            f"{1e3 * seconds:.4g}",
            f"{record.flops / seconds / 1e9:.3g}",
            f"{100 * record.flops / seconds / record.peak:.0f}%",
            f"{record.differences[name]:.1e}" if name in record.differences else "",
        )
        for name, seconds in record.seconds.items()
    ]
    yield from ("    " + line for line in table(("engine", "ms", "GFLOP/s", "of peak", "difference"), cells))
    for name, reason in record.refused.items():
        yield f"    {name}: {reason}"


def profile_lines(steps: Sequence[Step]) -> Iterator[str]:
    """Where the time goes: by kind, then by shape."""
    total = sum(step.seconds for step in steps)
    yield f"    each of {len(steps)} steps by itself, {1e3 * total:.4g} ms:"
    cells = [
        (f"{1e3 * seconds:.3f}", f"{100 * seconds / total:.0f}%", str(len(members)), members[0].kind)
        for seconds, members in _grouped(steps, lambda s: s.kind)
    ]
    yield from ("    " + line for line in table(("ms", "share", "times", "step"), cells))
    yield ""
    cells = [
        (
            f"{1e3 * seconds:.3f}",
            f"{100 * seconds / total:.1f}%",
            str(len(members)),
            f"{sum(m.flops for m in members) / seconds / 1e9:.3g}" if members[0].flops else "",
            members[0].kind,
            members[0].what,
            members[0].layer,
        )
        for seconds, members in _grouped(steps, lambda s: (s.kind, s.what))[:LONGEST]
    ]
    titles = ("ms", "share", "times", "GFLOP/s", "step", "shapes", "first layer")
    yield from ("    " + line for line in table(titles, cells))


def _grouped(steps: Sequence[Step], key: Callable[[Step], Hashable]) -> list[tuple[float, list[Step]]]:
    """Their seconds together and the members of each group, the longest first."""
    groups: dict[Hashable, list[Step]] = {}
    for step in steps:
        groups.setdefault(key(step), []).append(step)
    return sorted(((sum(s.seconds for s in m), m) for m in groups.values()), key=lambda pair: -pair[0])


def plot(records: Sequence[Record], file: Path) -> None:
    """A panel for each network: milliseconds by engine. Plain MLX, which would make all else small, is a number."""
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(records), figsize=(3.2 * len(records), 2.4), squeeze=False, sharey=True)
    engines = list(dict.fromkeys(name for r in records for name in r.seconds if name != MLX))
    for axes, record in zip(panels[0], records, strict=True):
        found = [(row, 1e3 * record.seconds[name]) for row, name in enumerate(engines) if name in record.seconds]
        rows, times = zip(*found, strict=True)
        bars = axes.barh(rows, times, color=["tab:orange" if engines[r] == OURS else "tab:blue" for r in rows])
        axes.bar_label(bars, [f"{t:.3g}" for t in times], padding=2, fontsize=8)
        plain = f"\nplain MLX {1e3 * record.seconds[MLX]:,.0f} ms" if MLX in record.seconds else ""
        axes.set_title(f"{_title(record)}{plain}", fontsize=8)
        axes.set(yticks=range(len(engines)), yticklabels=engines, xlabel="milliseconds")
        axes.margins(x=0.15)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0][0].invert_yaxis()
    figure.tight_layout()
    with plt.rc_context({"svg.fonttype": "none"}):
        figure.savefig(file)
    plt.close(figure)


def _title(record: Record) -> str:
    return f"{record.title}, {'x'.join(map(str, record.shape))}, {record.dtype}"
