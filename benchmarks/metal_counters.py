"""Device bytes of silu(convolution + bias) + residual on Metal, counted in the simulator: 58 problems, shrunk for it.

    python -m benchmarks.metal_counters [name ...]

MLX runs a convolution kernel and, under `mx.compile`, one elementwise kernel behind it; see benchmarks/steel. Each
access of each thread counts: there are no caches. Where MLX runs a kernel whose text it does not ship, the nearest one
that it ships stands in and is marked. By their sources, this is to MLX's favour for its depthwise kernel (which would
count 1.1 to 7 times the bytes) and for unfolding, but not for Winograd, whose products need about a fifth of the work.

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
from typing import Any

import mlx.core as mx

from benchmarks import measure
from benchmarks.problems import Problem, problems, shrink
from benchmarks.steel.run import mlx_counters

DTYPES = {"f32": mx.float32, "f16": mx.float16, "bf16": mx.bfloat16}


def row(problem: Problem, dtype: str) -> dict[str, Any]:
    """The figures of one problem, shrunk, with MLX's kernel and tile for its full size."""
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
    }


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """A table of all problems, in millions of bytes."""
    lines = [
        "| problem | dtype | MLX: convolution alone | with elementwise pass | useful / issued MMA | kernel and tile |",
        "|---|---|---|---|---|---|",
    ]
    for r in rows:
        mlx = r["mlx"]
        tile = f"{mlx['kernel'].removeprefix('implicit_gemm_')} {mlx['bm']}x{mlx['bn']}"
        nearest = "" if mlx["exact"] else f"; MLX itself runs {mlx['instead']}"
        useful = r["useful_multiply_adds"] / mlx["issued_multiply_adds"]
        lines.append(
            f"| {r['problem']} | {r['dtype']} | {mlx['conv_bytes'] / 1e6:.2f} | {mlx['bytes'] / 1e6:.2f} "
            f"| {useful:.0%} | {tile}{nearest} |"
        )
    return "\n".join(lines) + "\n"


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Bytes for each multiply-add of the definition, one bar a problem; pale where MLX runs something else."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 0.16 * len(rows) + 1), layout="constrained")
    labels = [f"{r['problem']} {r['dtype']}" for r in rows]
    shades = [1.0 if r["mlx"]["exact"] else 0.4 for r in rows]
    for part, colour in (("bytes", "tab:orange"), ("conv_bytes", "tab:blue")):
        bars = axes.barh(labels, [r["mlx"][part] / r["useful_multiply_adds"] for r in rows], color=colour)
        for bar, shade in zip(bars, shades, strict=True):
            bar.set_alpha(shade)
    axes.set(xscale="log", xlabel="device bytes a multiply-add: MLX's convolution (blue), elementwise pass (orange)")
    axes.invert_yaxis()
    axes.tick_params(axis="y", labelsize=5)
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
            alone, in_all = r["mlx"]["conv_bytes"] / 1e6, r["mlx"]["bytes"] / 1e6
            print(f"{r['problem']:18} {alone:9.2f} MB alone {in_all:9.2f} MB in all", flush=True)
    path = measure.save("metal_counters", {"rows": rows})
    path.with_suffix(".md").write_text(markdown(rows))
    plot(rows, path.with_suffix(".svg"))
    print(f"written to {path}, {path.with_suffix('.md').name} and {path.with_suffix('.svg').name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
