"""ResNet-50, 224x224, batch 1, fp32, against plain MLX; what compiling costs; what a call costs beyond its kernels.

    python -m benchmarks.resnet50

Writes benchmarks/results/resnet50.json and resnet50.svg.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn

import convjit
from benchmarks import measure
from examples.models import ResNet50, ready

BARS = {
    "speedup": (20.0, "at least", "x over plain MLX"),
    "relative_error": (1e-4, "at most", ""),
    "cold_compile_s": (8.0, "at most", "s, first call of a process, empty cache"),
    "warm_compile_s": (1.0, "at most", "s, first call of a later process, the median of five"),
    "import_ms": (60.0, "at most", "ms, import convjit after mlx.core"),
    "conv_call_us": (100.0, "at most", "us, a call of one 1x8x8x8 convolution, its kernel included"),
    "resnet_overhead_us": (300.0, "at most", "us, a call of ResNet-50 beyond its kernels and MLX steps"),
}


def image(size: int = 224) -> mx.array:
    return mx.random.normal((1, size, size, 3), key=mx.random.key(1))


def first_call_seconds() -> float:
    """How long the first call takes in this process: imports, tracing, passes, kernels, packing, running."""
    model, x = ready(ResNet50()), image()
    mx.eval(x)
    start = time.perf_counter()
    mx.eval(convjit.compile(model)(x))
    return time.perf_counter() - start


def import_ms(repeats: int = 9) -> float:
    """The median time of `import convjit` after `import mlx.core`, in new processes."""
    program = "import mlx.core, time; t = time.perf_counter(); import convjit; print(time.perf_counter() - t)"
    runs = [
        subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True)
        for _ in range(repeats)
    ]
    return measure.median_ms([float(run.stdout) for run in runs])


def call_us(model: nn.Module, x: mx.array, calls: int = 300) -> float:
    """The median time of a compiled call, without what evaluates its result."""
    fast = convjit.compile(model, fallback="error")
    seconds: list[float] = []
    for _ in range(calls):
        start = time.perf_counter()
        y = fast(x)
        seconds.append(time.perf_counter() - start)
        mx.eval(y)
    return 1e6 * statistics.median(seconds)


def overhead_us(model: nn.Module, x: mx.array, calls: int = 300) -> float:
    """The median time of a compiled call outside of its steps: kernels and replayed MLX ops."""
    fast = convjit.compile(model, fallback="error")
    mx.eval(fast(x))
    forward = fast._last.program.forward
    inside = 0.0

    def timed(run: Callable[[list[mx.array]], Any]) -> Callable[[list[mx.array]], Any]:
        def call(inputs: list[mx.array]) -> Any:
            nonlocal inside
            start = time.perf_counter()
            outputs = run(inputs)
            inside += time.perf_counter() - start
            return outputs

        return call

    forward.steps = [step._replace(run=timed(step.run)) for step in forward.steps]
    outside: list[float] = []
    for _ in range(calls):
        inside = 0.0
        start = time.perf_counter()
        y = fast(x)
        outside.append(time.perf_counter() - start - inside)
        mx.eval(y)
    return 1e6 * statistics.median(outside)


def plot(seconds: dict[str, list[float]], path: Path) -> None:
    """One dot a call, on a logarithmic axis."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 2), layout="constrained")
    for row, times in enumerate(seconds.values()):
        median = measure.median_ms(times)
        axes.plot([1e3 * t for t in times], [row] * len(times), "o", alpha=0.6)
        axes.annotate(f"{median:.3g} ms", (median, row + 0.2), ha="center")
    axes.set(xscale="log", xlabel="milliseconds a call", yticks=range(len(seconds)), yticklabels=list(seconds))
    axes.set(ylim=(-0.6, len(seconds) - 0.4), title="ResNet-50, 224x224, batch 1, fp32")
    figure.savefig(path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="timed calls of each candidate")
    parser.add_argument("--first-call", action="store_true", help="only print the seconds of this process's first call")
    options = parser.parse_args()
    if options.first_call:
        print(json.dumps({"seconds": first_call_seconds()}))
        return 0

    with tempfile.TemporaryDirectory() as folder:
        cold, *warm = (
            measure.in_new_process("benchmarks.resnet50", "--first-call", cache=Path(folder))["seconds"]
            for _ in range(6)
        )
    model, x = ready(ResNet50()), image()
    fast = convjit.compile(model, fallback="error")
    error = measure.relative_error(fast(x), model(x))
    seconds = measure.interleaved({"plain MLX": lambda: model(x), "convjit": lambda: fast(x)}, options.rounds)
    plain_ms, fast_ms = (measure.median_ms(times) for times in seconds.values())
    figures = {
        "plain_ms": plain_ms,
        "convjit_ms": fast_ms,
        "speedup": plain_ms / fast_ms,
        "relative_error": error,
        "cold_compile_s": cold,
        "warm_compile_s": statistics.median(warm),
        "warm_compiles_s": warm,
        "import_ms": import_ms(),
        "conv_call_us": call_us(ready(nn.Conv2d(8, 8, 3, padding=1)), mx.ones((1, 8, 8, 8))),
        "resnet_overhead_us": overhead_us(model, image(32)),
        "seconds": seconds,
    }
    path = measure.save("resnet50", figures)
    plot(seconds, path.with_suffix(".svg"))
    print(f"plain MLX {plain_ms:.0f} ms, convjit {fast_ms:.1f} ms")
    missed = 0
    for name, (bar, direction, meaning) in BARS.items():
        met = figures[name] >= bar if direction == "at least" else figures[name] <= bar
        missed += not met
        print(f"{'ok  ' if met else 'MISS'} {name:20} {figures[name]:<9.3g} {direction} {bar:g} {meaning}")
    print(f"written to {path} and {path.with_suffix('.svg').name}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
