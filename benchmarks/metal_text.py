"""The Metal kernels of the demo networks, executed on the host from MLX's exact text, against float64.

    python -m benchmarks.metal_text

Each distinct kernel of the small networks and of a shrunk ResNet-50, in float32, float16 and bfloat16, runs on random
inputs of its own shapes in `convjit.simulator`; the text is linted, too. No times: a simulator has none worth telling.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import numpy as np

import convjit
from benchmarks import measure
from convjit import simulator
from convjit.backends import MLX_DTYPES, Stretch, registry
from convjit.kernel import Kernel
from convjit.schedule import Schedule
from examples.models import SMALL, ResNet50, ready
from tests.numerics import reference

BARS = {"f32": 1e-5, "f16": 2e-3, "bf16": 1e-2}


@dataclass(frozen=True)
class Check:
    """One kernel: relative error (against the largest magnitude of the float64 reference) and lint findings."""

    network: str
    dtype: str
    layer: str
    error: float
    findings: int

    @property
    def right(self) -> bool:
        return self.error <= BARS[self.dtype] and not self.findings


def check_network(name: str, model: nn.Module, shape: tuple[int, ...], dtype: str) -> Iterator[Check]:
    """Check every distinct kernel of a network."""
    model.set_dtype(MLX_DTYPES[dtype])
    fast = convjit.compile(model, backend="simulator", fallback="quiet")
    mx.eval(fast(mx.random.normal(shape, key=mx.random.key(0)).astype(MLX_DTYPES[dtype])))
    seen: set[Kernel] = set()
    for layer, kernel, schedule in convjit.inspect.kernels(fast):
        if kernel.any_batch() in seen:
            continue
        seen.add(kernel.any_batch())
        yield Check(name, dtype, layer, _error(kernel, schedule), len(simulator.lint(_text(kernel, schedule))))


def _text(kernel: Kernel, schedule: Schedule) -> str:
    return registry.get("simulator").source(kernel, schedule)


def _error(kernel: Kernel, schedule: Schedule) -> float:
    backend = registry.get("simulator")
    keys = iter(mx.random.split(mx.random.key(1), 2 + len(kernel.extras)))
    geometry = kernel.geometry

    def random(shape: tuple[int, ...], dtype: str, scale: float = 1.0) -> mx.array:
        return (scale * mx.random.normal(shape, key=next(keys))).astype(MLX_DTYPES[dtype])

    x = random(geometry.in_shape, kernel.dtype)
    w = random(geometry.weight_shape, kernel.dtype, float(np.prod(geometry.weight_shape[1:])) ** -0.5)
    extras = [random(e.shape, e.dtype) for e in kernel.extras]
    actual = backend.load(Stretch.of_kernel(kernel, schedule))([x, backend.pack(geometry.window, schedule, w), *extras])
    expected = reference.results(kernel, *(_float64(a) for a in (x, w)), [_float64(e) for e in extras])
    return max(float(np.abs(_float64(a) - e).max() / np.abs(e).max()) for a, e in zip(actual, expected, strict=True))


def _float64(array: mx.array) -> np.ndarray:
    return np.array(array.astype(mx.float32)).astype(np.float64)


def main() -> int:
    networks = {name: (ready(make()), shape) for name, (make, shape) in SMALL.items()}
    networks["ResNet-50, 32x32"] = (ready(ResNet50()), (1, 32, 32, 3))
    checks: list[Check] = []
    for name, (model, shape) in networks.items():
        for dtype in BARS:
            found = list(check_network(name, model, shape, dtype))
            worst = max(found, key=lambda c: c.error)
            wrong = sum(not c.right for c in found)
            print(f"{name:17} {dtype:5} {len(found):3} kernels, {wrong} wrong, worst {worst.error:.1e} ({worst.layer})")
            checks += found
    wrong = [c for c in checks if not c.right]
    figures = {"kernels": len(checks), "wrong": len(wrong), "bars": BARS, "checks": [vars(c) for c in checks]}
    print(f"{len(checks)} kernels, {len(wrong)} wrong; written to {measure.save('metal_text', figures)}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
