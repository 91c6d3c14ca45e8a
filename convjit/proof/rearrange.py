"""How rearrangements prove themselves: what they read, which results are looked at, and what these must be."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import mlx.core as mx
import numpy as np

from convjit.backends import MLX_DTYPES
from convjit.kernel import Rearrange
from convjit.proof.oracle import Bounds, Outputs, Places, Stored
from convjit.proof.samples import of_elements, suspects
from convjit.schedule import Schedule


def inputs(kernel: Rearrange, generator: np.random.Generator) -> list[mx.array]:
    """Random numbers: no two of them are likely to be the same, in float32."""
    dtype = MLX_DTYPES[kernel.dtype]
    return [
        mx.array(generator.uniform(-1, 1, shape).astype(np.float32)).astype(dtype) for shape in kernel.operand_shapes
    ]


def values(kernel: Rearrange, arrays: Sequence[Stored]) -> Stored:
    """The result; NaN where no part is."""
    result = np.full(kernel.shape, np.nan, np.float32)
    for array, part in zip(arrays, kernel.parts, strict=True):
        at = _places(part.shape, part.source, part.source_strides)
        result.reshape(-1)[_places(part.shape, part.target, part.target_strides)] = array.reshape(-1)[at]
    return result


def _places(shape: Sequence[int], first: int, strides: Sequence[int]) -> Places:
    steps = (np.arange(n) * stride for n, stride in zip(shape, strides, strict=True))
    return reduce(np.add, np.ix_(*steps), np.array(first))


def checks(
    kernel: Rearrange,
    schedule: Schedule,
    arrays: Sequence[Stored],
    results: Sequence[Stored],
    generator: np.random.Generator,
) -> list[tuple[Outputs, Bounds]]:
    """Where to look, and what must be there: the same numbers."""
    outputs = of_elements(kernel.shape, schedule, generator)
    wrong = np.unravel_index(suspects(results[0]), kernel.shape)
    outputs = tuple(np.concatenate(axis) for axis in zip(outputs, wrong, strict=True))
    exact = values(kernel, arrays)[outputs].astype(np.float64)
    return [(outputs, Bounds(exact, exact, exact))]
