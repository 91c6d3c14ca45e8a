"""Device bytes of silu(convolution + bias) + residual on Metal, counted in the simulator: 58 problems, shrunk for it.

    python -m benchmarks.metal_counters [name ...]

We run one kernel. MLX runs a convolution kernel and, under `mx.compile`, one elementwise kernel behind it; see
benchmarks/steel. Each access of each thread counts: there are no caches. Where MLX runs a kernel whose text it does not
ship, the nearest one that it ships stands in and is marked. By their sources, this is to MLX's favour for its depthwise
kernel (which would count 1.1 to 7 times the bytes) and for unfolding, but not for Winograd, whose products need about a
fifth of the work.

Writes benchmarks/results/metal_counters.json, .md and .svg.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from statistics import geometric_mean
from typing import Any

import mlx.core as mx

from benchmarks import measure
from benchmarks.kernels import EPILOGUES, kernel_of
from benchmarks.problems import Problem, problems, shrink
from benchmarks.steel.run import mlx_counters
from convjit.backends.simulator import SimulatorBackend
from convjit.geometry import Geometry
from convjit.schedule.metal import choose
from convjit.schedule.metal.chip import CHIPS

CHIP = "M1 Pro"
"""Whose schedules ours are."""

BARE, FUSED = EPILOGUES
DTYPES = {"f32": mx.float32, "f16": mx.float16, "bf16": mx.bfloat16}


def row(problem: Problem, dtype: str) -> dict[str, Any]:
    """The figures of one problem, shrunk, with the kernels and tiles for its full size."""
    small = shrink(problem.geometry)
    mlx = mlx_counters(small, DTYPES[dtype], tile_for=problem.geometry)
    return {
        "problem": problem.name,
        "dtype": dtype,
        "in_shape": small.in_shape,
        "weight_shape": small.weight_shape,
        "out_shape": small.out_shape,
        "useful_multiply_adds": small.flops // 2,
        "mlx": {
            **asdict(mlx.choice),
            "exact": mlx.exact,
            "conv_bytes": mlx.conv_bytes,
            "copied_bytes": mlx.copied_bytes,
            "bytes": mlx.bytes,
            "issued_multiply_adds": 512 * mlx.conv.mma_operations,
            "conv": asdict(mlx.conv),
            "elementwise": asdict(mlx.elementwise),
        },
        "convjit": {epilogue: ours(problem.geometry, small, dtype, epilogue) for epilogue in EPILOGUES},
    }


def ours(geometry: Geometry, small: Geometry, dtype: str, epilogue: str) -> dict[str, Any]:
    """What our kernels do for `small`, by the schedule for `geometry`."""
    backend = SimulatorBackend()
    kernel = kernel_of(small, dtype, epilogue)
    schedule = choose(kernel_of(geometry, dtype, epilogue), CHIPS[CHIP])
    shapes = [small.in_shape, small.weight_shape, *(e.shape for e in kernel.extras)]
    x, w, *extras = (
        mx.random.normal(shape, key=mx.random.key(seed)).astype(DTYPES[dtype]) for seed, shape in enumerate(shapes)
    )
    packed = backend.pack(small.window, schedule, w)
    done = backend.examine(backend.dispatches(kernel, schedule), [x, packed, *extras])
    if done.findings:
        raise SystemExit(f"{geometry.in_words()}: {'; '.join(done.findings)}")
    return {
        "schedule": schedule.in_words(),
        "bytes": sum(c.device_bytes_read + c.device_bytes_written for c in done.counters),
        "issued_multiply_adds": sum(512 * c.mma_operations + c.fma_operations for c in done.counters),
        "counters": [asdict(c) for c in done.counters],
    }


def ratios(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Geometric means of our bytes by MLX's: where the kernel is MLX's own, and over all."""

    def means(chosen: Sequence[dict[str, Any]]) -> dict[str, float]:
        alone = [r["convjit"][BARE]["bytes"] / r["mlx"]["conv_bytes"] for r in chosen]
        fused = [r["convjit"][FUSED]["bytes"] / r["mlx"]["bytes"] for r in chosen]
        return {"problems": len(chosen), BARE: geometric_mean(alone), FUSED: geometric_mean(fused)}

    exact = [r for r in rows if r["mlx"]["exact"]]
    return {"MLX's own kernel": means(exact), "all": means(rows)} if exact else {"all": means(rows)}


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """A table of all problems, in millions of bytes."""
    lines = [
        f"| problem | convolution: MLX | convjit | ratio | {FUSED}: MLX | convjit | ratio | MLX's kernel | ours |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        mlx, mine = r["mlx"], r["convjit"]
        tile = f"{mlx['kernel'].removeprefix('implicit_gemm_')} {mlx['bm']}x{mlx['bn']}"
        nearest = "" if mlx["exact"] else f"; MLX itself runs {mlx['instead']}"
        cells = [r["problem"]]
        for theirs, epilogue in ((mlx["conv_bytes"], BARE), (mlx["bytes"], FUSED)):
            own = mine[epilogue]["bytes"]
            cells += [f"{theirs / 1e6:.2f}", f"{own / 1e6:.2f}", f"{own / theirs:.2f}"]
        lines.append(f"| {' | '.join([*cells, tile + nearest, mine[FUSED]['schedule'].split()[0]])} |")
    for what, mean in ratios(rows).items():
        lines.append(
            f"| **geometric mean, {what}: {mean['problems']}** | | | {mean[BARE]:.2f} | | | {mean[FUSED]:.2f} | | |"
        )
    return "\n".join(lines) + "\n"


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Our bytes by MLX's, two marks a problem; pale where MLX runs something else."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 0.16 * len(rows) + 1), layout="constrained")
    for number, r in enumerate(rows):
        shade = 1.0 if r["mlx"]["exact"] else 0.35
        alone = r["convjit"][BARE]["bytes"] / r["mlx"]["conv_bytes"]
        fused = r["convjit"][FUSED]["bytes"] / r["mlx"]["bytes"]
        axes.plot(alone, number, "o", color="tab:blue", alpha=shade, markersize=4)
        axes.plot(fused, number, "D", color="tab:orange", alpha=shade, markersize=4)
    axes.axvline(1, color="grey", linewidth=0.8)
    axes.margins(y=0.01)
    axes.set(xscale="log", xlabel="device bytes, convjit / MLX: convolution (blue), with bias, SiLU, residual (orange)")
    axes.set_yticks(range(len(rows)), [r["problem"] for r in rows], fontsize=5)
    axes.set_xticks([0.02, 0.05, 0.1, 0.2, 0.5, 1, 2], ["0.02", "0.05", "0.1", "0.2", "0.5", "1", "2"])
    axes.minorticks_off()
    axes.grid(axis="x", linewidth=0.3)
    axes.invert_yaxis()
    figure.savefig(path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="problems of conv_problems.json; all by default")
    parser.add_argument("--dtype", choices=DTYPES, default="f32")
    options = parser.parse_args()
    known = {p.name: p for p in problems()}
    if unknown := [n for n in options.names if n not in known]:
        parser.error(f"no problem {', '.join(unknown)} in conv_problems.json; it has {', '.join(known)}")
    chosen = [known[n] for n in options.names or known]
    rows: list[dict[str, Any]] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # each kernel runs in a process of its own
        for r in pool.map(lambda p: row(p, options.dtype), chosen):
            rows.append(r)
            alone = r["convjit"][BARE]["bytes"] / r["mlx"]["conv_bytes"]
            fused = r["convjit"][FUSED]["bytes"] / r["mlx"]["bytes"]
            print(
                f"{r['problem']:18} {alone:6.2f} alone {fused:6.2f} fused   {r['convjit'][FUSED]['schedule']}",
                flush=True,
            )
    for what, mean in ratios(rows).items():
        print(f"geometric mean, {what} ({mean['problems']}): {mean[BARE]:.2f} alone, {mean[FUSED]:.2f} fused")
    path = measure.save("metal_counters", {"chip": CHIP, "rows": rows, "geometric_means": ratios(rows)})
    path.with_suffix(".md").write_text(markdown(rows))
    plot(rows, path.with_suffix(".svg"))
    print(f"written to {path}, {path.with_suffix('.md').name} and {path.with_suffix('.svg').name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
