"""A training step of ResNet-20 on 32x32 images, batch 32, float32, SGD with momentum: convjit, plain MLX and PyTorch.

    python -m benchmarks.train_step

Writes benchmarks/results/train_step.json and train_step.svg. All run in one process, in turns, on the same number of
threads, with a pause between two in which the threads of the former come to rest. A step is everything: forward,
backward, BatchNorm's running statistics, the optimizer.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np

import convjit
from benchmarks import measure
from convjit.backends.cpu.cpus import threads
from examples.models import ResNet20

BATCH, SIZE, CLASSES = 32, 32, 10
RATE, MOMENTUM = 0.05, 0.9

CHECKED_STEPS = 2
"""Of each, whose losses are compared. More, and they drift apart: rounding decides on which side of zero a ReLU's input
is, and a single one of these moved a gradient by 7% (plain MLX against float64; convjit's moved by 0.5%)."""

BARS = {
    "over_mlx": (20.0, "at least", "x over plain MLX"),
    "over_pytorch": (1.0, "at least", "x over PyTorch, eager, the better of its two layouts"),
    "loss_difference": (1e-4, "at most", f"between losses and plain MLX's in {CHECKED_STEPS} steps"),
}

Step = Callable[[], float]
"""Does one step, completely, and gives the loss."""


def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((BATCH, SIZE, SIZE, 3), np.float32), rng.integers(0, CLASSES, BATCH)


def mlx_step(compiled: bool) -> Step:
    """With weights of a fixed seed: the compiled step and the plain one begin alike."""
    mx.random.seed(0)
    model = ResNet20(CLASSES)
    optimizer = optim.SGD(RATE, momentum=MOMENTUM)
    optimizer.init(model.trainable_parameters())
    images, labels = map(mx.array, data())

    def loss(images: mx.array, labels: mx.array) -> mx.array:
        return nn.losses.cross_entropy(model(images), labels, reduction="mean")

    def step(images: mx.array, labels: mx.array) -> mx.array:
        value, gradients = nn.value_and_grad(model, loss)(images, labels)
        optimizer.update(model, gradients)
        return value

    run = convjit.compile(step, fallback="error") if compiled else step

    def call() -> float:
        value = run(images, labels)
        mx.eval(value, model.state, optimizer.state)
        return value.item()

    return call


def pytorch_step(channels_last: bool) -> Step:
    import torch
    from torch import nn as tnn

    torch.set_num_threads(threads())
    torch.manual_seed(0)

    def convolution(inputs: int, outputs: int, kernel: int, stride: int) -> tnn.Module:
        layer = tnn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        return tnn.Sequential(layer, tnn.BatchNorm2d(outputs))

    class Block(tnn.Module):
        def __init__(self, inputs: int, outputs: int, stride: int):
            super().__init__()
            self.first, self.second = convolution(inputs, outputs, 3, stride), convolution(outputs, outputs, 3, 1)
            self.shortcut = tnn.Identity() if inputs == outputs else convolution(inputs, outputs, 1, stride)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return tnn.functional.relu(self.second(tnn.functional.relu(self.first(x))) + self.shortcut(x))

    widths = [16] * 4 + [32] * 3 + [64] * 3
    blocks = [Block(i, o, 1 if i == o else 2) for i, o in itertools.pairwise(widths)]
    head = [tnn.AdaptiveAvgPool2d(1), tnn.Flatten(), tnn.Linear(64, CLASSES)]
    model = tnn.Sequential(convolution(3, 16, 3, 1), tnn.ReLU(), *blocks, *head)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = model.to(memory_format=layout)
    optimizer = torch.optim.SGD(model.parameters(), RATE, momentum=MOMENTUM)
    images, labels = data()
    x = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(memory_format=layout)
    y = torch.from_numpy(labels)

    def call() -> float:
        optimizer.zero_grad()
        loss = tnn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return call


def interleaved(steps: dict[str, Step], rounds: int, turn: int) -> dict[str, list[float]]:
    """Seconds of each step: in each round everyone has a turn of `turn` steps, plain MLX of one."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            time.sleep(0.05)
            for _ in range(1 if name == "plain MLX" else turn):
                start = time.perf_counter()
                step()
                seconds[name].append(time.perf_counter() - start)
    return seconds


def plot(seconds: dict[str, list[float]], path: Path) -> None:
    """One dot a step, on a logarithmic axis."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 2.4), layout="constrained")
    for row, times in enumerate(seconds.values()):
        median = measure.median_ms(times)
        axes.plot([1e3 * t for t in times], [row] * len(times), "o", alpha=0.3)
        axes.annotate(f"{median:.3g} ms", (median, row + 0.2), ha="center")
    axes.set(xscale="log", xlabel="milliseconds a step", yticks=range(len(seconds)), yticklabels=list(seconds))
    axes.set(ylim=(-0.6, len(seconds) - 0.4), title="ResNet-20, 32x32, batch 32: a training step")
    figure.savefig(path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each")
    parser.add_argument("--turn", type=int, default=8, help="steps of a turn")
    options = parser.parse_args()

    fast, plain = mlx_step(compiled=True), mlx_step(compiled=False)
    start = time.perf_counter()
    losses = [fast()]
    first_s = time.perf_counter() - start
    losses += [fast() for _ in range(CHECKED_STEPS - 1)]
    difference = max(abs(ours - plain()) for ours in losses)
    steps = {"plain MLX": plain, "convjit": fast}
    for name, channels_last in (("PyTorch NCHW", False), ("PyTorch channels_last", True)):
        steps[name] = pytorch_step(channels_last)
        steps[name]()
    seconds = interleaved(steps, options.rounds, options.turn)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    best = min(medians["PyTorch NCHW"], medians["PyTorch channels_last"])
    figures: dict[str, Any] = {
        "over_mlx": medians["plain MLX"] / medians["convjit"],
        "over_pytorch": best / medians["convjit"],
        "loss_difference": difference,
        "first_step_s": first_s,
        "seconds": seconds,
    }
    path = measure.save("train_step", figures)
    plot(seconds, path.with_suffix(".svg"))
    print(
        "  ".join(f"{name} {1e3 * median:.4g} ms" for name, median in medians.items()) + f", first step {first_s:.1f} s"
    )
    missed = 0
    for name, (bar, direction, meaning) in BARS.items():
        met = figures[name] >= bar if direction == "at least" else figures[name] <= bar
        missed += not met
        print(f"{'ok  ' if met else 'MISS'} {name:16} {figures[name]:<9.3g} {direction} {bar:g} {meaning}")
    print(f"written to {path} and {path.with_suffix('.svg').name}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
