"""How pools prove themselves: what they read, which results are looked at, and what these must be."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import numpy as np

from convjit.backends import MLX_DTYPES
from convjit.kernel import Pool
from convjit.proof.oracle import Bounds, Outputs, Stored, bounds_of_pool
from convjit.proof.samples import samples_and_suspects
from convjit.schedule import Schedule


def inputs(kernel: Pool, generator: np.random.Generator) -> list[mx.array]:
    """Random numbers of either sign."""
    x = generator.uniform(-2, 2, kernel.geometry.in_shape)
    return [mx.array(x.astype(np.float32)).astype(MLX_DTYPES[kernel.dtype])]


def checks(
    kernel: Pool,
    schedule: Schedule,
    arrays: Sequence[Stored],
    results: Sequence[Stored],
    generator: np.random.Generator,
) -> list[tuple[Outputs, Bounds]]:
    """Where to look, and what must be there."""
    outputs = samples_and_suspects(kernel, schedule, results, generator)
    return [(outputs, bounds_of_pool(kernel, arrays[0], outputs))]
