"""A tour: train a small CNN with plain MLX, compile it, look inside, and compare; then ResNet-50.

    make demo

Exits with 1 if anything that convjit computes differs from plain MLX by more than 1e-4.
"""

from __future__ import annotations

import sys
import time

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.syntax import Syntax
from rich.table import Table
from sklearn.datasets import load_digits

import convjit
from benchmarks.measure import interleaved, median_ms, relative_error
from examples.models import Digits, ResNet50, ready

TOLERANCE = 1e-4
EPOCHS, BATCH = 6, 64

console = Console()
disagreements: list[str] = []


def agree(what: str, y: mx.array, reference: mx.array) -> None:
    """Print how far two results are apart, and remember it if that is too far."""
    error = relative_error(y, reference)
    if error <= TOLERANCE:
        console.print(f"[green]agrees[/]    {what}: relative error {error:.1e}", soft_wrap=True)
        return
    disagreements.append(what)
    console.print(f"[red]DISAGREES[/] {what}: relative error {error:.1e}, more than {TOLERANCE:g}", soft_wrap=True)


def train() -> tuple[Digits, mx.array, mx.array]:
    """A trained model, test images and their labels."""
    digits = load_digits()
    images, labels = mx.array(digits.images[..., None] / 16, mx.float32), mx.array(digits.target)
    order = mx.array(np.random.default_rng(0).permutation(len(digits.target)))
    train_set, test_set = order[:1437], order[1437:]
    mx.random.seed(0)
    model = Digits()
    optimizer = optim.AdamW(3e-3)

    def loss(x: mx.array, y: mx.array) -> mx.array:
        return nn.losses.cross_entropy(model(x), y, reduction="mean")

    step = nn.value_and_grad(model, loss)
    with Progress(console=console) as progress:
        task = progress.add_task("training", total=EPOCHS * len(train_set))
        for _ in range(EPOCHS):
            shuffled = mx.random.permutation(train_set)
            for start in range(0, len(train_set), BATCH):
                batch = shuffled[start : start + BATCH]
                value, gradients = step(images[batch], labels[batch])
                optimizer.update(model, gradients)
                mx.eval(model.parameters(), optimizer.state)
                progress.update(task, advance=len(batch), description=f"training, loss {value.item():.3f}")
    model.eval()
    return model, images[test_set], labels[test_set]


def accuracy(scores: mx.array, labels: mx.array) -> float:
    return (scores.argmax(1) == labels).astype(mx.float32).mean().item()


def show_code(text: str, language: str) -> None:
    console.print(Syntax(text, language).highlight(text), soft_wrap=True)


def show_times(seconds: dict[str, list[float]]) -> None:
    """A table of medians; the first is what the others are compared with."""
    medians = {name: median_ms(times) for name, times in seconds.items()}
    reference = next(iter(medians.values()))
    table = Table("", "milliseconds", "speed-up")
    for name, median in medians.items():
        table.add_row(name, f"{median:.2f}", f"{reference / median:.1f}x")
    console.print(table)


def tour_of_one_layer(layer: nn.Module, x: mx.array) -> None:
    """Its IR as traced and as fused, its Metal text, and that text executed on the host."""
    fast = convjit.compile(layer, backend="simulator")
    simulated = fast(x)
    console.rule("4. Convolution, BatchNorm and ReLU, as MLX traces them")
    show_code(convjit.inspect.ir(fast, "traced"), "mlir")
    console.rule("... and fused: BatchNorm in the weights, the rest in the convolution")
    show_code(convjit.inspect.ir(fast, "fused"), "mlir")
    console.rule("5. Its Metal text")
    show_code(convjit.inspect.source(fast, "conv"), "cpp")
    agree("this text, executed by the simulator", simulated, layer(x))


def resnet50() -> None:
    model, x = ready(ResNet50()), mx.random.normal((1, 224, 224, 3), key=mx.random.key(1))
    fast = convjit.compile(model)
    with console.status("compiling"):
        start = time.perf_counter()
        y = fast(x)
        mx.eval(y)
    console.print(f"first call: {time.perf_counter() - start:.1f} s")
    with console.status("plain MLX takes seconds a call"):
        agree("ResNet-50's scores", y, model(x))
        show_times(interleaved({"plain MLX": lambda: model(x), "convjit": lambda: fast(x)}, rounds=3))


def main() -> int:
    console.rule("1. Train a small CNN on handwritten digits, with plain MLX")
    model, images, labels = train()

    console.rule("2. fast = convjit.compile(model)")
    fast = convjit.compile(model)
    plain_scores, fast_scores = model(images), fast(images)
    plain_accuracy, fast_accuracy = accuracy(plain_scores, labels), accuracy(fast_scores, labels)
    console.print(f"test accuracy: plain MLX {plain_accuracy:.2%}, convjit {fast_accuracy:.2%}")
    if plain_accuracy != fast_accuracy:
        disagreements.append("accuracy")
    agree("scores of the test images", fast_scores, plain_scores)
    show_times(interleaved({"plain MLX": lambda: model(images), "convjit": lambda: fast(images)}, rounds=10))

    console.rule("3. print(convjit.inspect.explain(fast))")
    print(convjit.inspect.explain(fast))

    tour_of_one_layer(model.down, mx.random.normal((1, 8, 8, 16), key=mx.random.key(2)))

    console.rule("6. ResNet-50, 224x224, batch 1")
    resnet50()

    if disagreements:
        console.print(f"[red]Something disagrees with plain MLX:[/] {', '.join(disagreements)}")
        return 1
    console.print("[green]Everything agrees with plain MLX.[/]")
    return 0


if __name__ == "__main__":
    sys.exit(main())
