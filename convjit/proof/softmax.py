"""How softmaxes prove themselves: what they read, which results are looked at, and what these must be."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import numpy as np

from convjit.backends import MLX_DTYPES
from convjit.kernel import Softmax
from convjit.proof.oracle import TOLERANCE, Array, Bounds, Outputs, Stored
from convjit.proof.samples import of_elements, suspects
from convjit.schedule import Schedule


def inputs(kernel: Softmax, generator: np.random.Generator) -> list[mx.array]:
    """Random numbers. Rows differ in how large they are and how far apart, so that none can stand for another."""
    x = generator.uniform(-1, 1, (kernel.rows, kernel.shape[-1]))
    x = x * generator.uniform(0.5, 4, (kernel.rows, 1)) + generator.uniform(-30, 30, (kernel.rows, 1))
    return [mx.array(x.reshape(kernel.shape).astype(np.float32)).astype(MLX_DTYPES[kernel.dtype])]


def values(x: Array) -> Array:
    """The softmax along the last axis."""
    exponentials = np.exp(x - x.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def checks(
    kernel: Softmax,
    schedule: Schedule,
    arrays: Sequence[Stored],
    results: Sequence[Stored],
    generator: np.random.Generator,
) -> list[tuple[Outputs, Bounds]]:
    """Where to look, and what must be there."""
    columns = kernel.shape[-1]
    row, column = of_elements((kernel.rows, columns), schedule, generator)
    places = np.concatenate([row * columns + column, suspects(results[0])])
    outputs = np.unravel_index(places, kernel.shape)
    exact = values(arrays[0].astype(np.float64))[outputs]
    slack = TOLERANCE[kernel.dtype] * (exact + 1 / columns)
    return [(outputs, Bounds(exact, exact - slack, exact + slack))]
