"""How convolutions and gradients of weights prove themselves: what they read, which results are looked at, and what
these must be."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import numpy as np

from convjit.backends import MLX_DTYPES
from convjit.kernel import Kernel
from convjit.proof.oracle import Bounds, Outputs, Stored, bounds
from convjit.proof.samples import samples_and_suspects
from convjit.schedule import Schedule
from convjit.schedule.metal.winograd import TEMPLATE as WINOGRAD


def inputs(kernel: Kernel, generator: np.random.Generator) -> list[mx.array]:
    """Random operands, see `Kernel.operand_shapes`, and extras, so that results are about as large as 1."""
    first, second = kernel.operand_shapes
    x = _around_zero(generator, first)
    w = _around_zero(generator, second) / np.float32(kernel.terms**0.5)
    # Positive, so that no logarithm, root or quotient of theirs is NaN.
    extras = [generator.uniform(0.25, 1.75, e.shape).astype(np.float32) for e in kernel.extras]
    dtypes = [kernel.dtype, kernel.dtype, *(e.dtype for e in kernel.extras)]
    return [mx.array(a).astype(MLX_DTYPES[d]) for a, d in zip([x, w, *extras], dtypes, strict=True)]


def checks(
    kernel: Kernel,
    schedule: Schedule,
    arrays: Sequence[Stored],
    results: Sequence[Stored],
    generator: np.random.Generator,
) -> list[tuple[Outputs, Bounds]]:
    """For each result, where to look, everywhere at the same outputs, and what must be there."""
    outputs = samples_and_suspects(kernel, schedule, results, generator)
    products = kernel.dtype if schedule.template == WINOGRAD else "f32"
    return [(outputs, found) for found in bounds(kernel, arrays, outputs, products)]


def _around_zero(generator: np.random.Generator, shape: tuple[int, ...]) -> Stored:
    """Uniform, of unit variance."""
    return (generator.random(shape, np.float32) - np.float32(0.5)) * np.float32(12**0.5)
