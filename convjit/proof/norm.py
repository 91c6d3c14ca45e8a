"""How norms prove themselves: what they read, which results are looked at, and what these must be."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import mlx.core as mx
import numpy as np

from convjit.backends import MLX_DTYPES
from convjit.kernel import Norm
from convjit.proof.oracle import TOLERANCE, Array, Bounds, Outputs, Stored, bounds_of_epilogue, pick
from convjit.proof.samples import of_elements, suspects
from convjit.schedule import Schedule


def inputs(kernel: Norm, generator: np.random.Generator) -> list[mx.array]:
    """Random operands. Images, groups, channels and the pixels of an image differ, so that none can stand for another;
    extras are positive, so that no logarithm, root or quotient of theirs is NaN."""
    view, axes = _seen(kernel)
    of_group = tuple(1 if axis in axes else n for axis, n in enumerate(view))
    x = generator.uniform(-1, 1, view) * generator.uniform(0.5, 2, of_group)
    x += generator.uniform(-2, 2, (view[0], 1, *view[2:])) + np.linspace(-1, 1, view[1])[:, None, None]
    extras = [generator.uniform(0.25, 1.75, e.shape) for e in kernel.extras]
    arrays = [x.reshape(kernel.shape), *extras]
    return [
        mx.array(a.astype(np.float32)).astype(MLX_DTYPES[dtype])
        for a, dtype in zip(arrays, kernel.operand_dtypes, strict=True)
    ]


def _seen(kernel: Norm) -> tuple[tuple[int, ...], tuple[int, int]]:
    """The shape as images, pixels, and groups beside channels of a group; which axes have statistics together."""
    channels = kernel.shape[-1] // kernel.groups
    of_pixel = (channels, kernel.groups) if kernel.interleaved else (kernel.groups, channels)
    return (kernel.images, kernel.pixels, *of_pixel), (1, 2 if kernel.interleaved else 3)


def normalised(kernel: Norm, x: Array) -> Array:
    """What the epilogue is given."""
    view, axes = _seen(kernel)
    parts = x.reshape(view)
    if kernel.centered:
        parts = parts - parts.mean(axes, keepdims=True)
    variance = np.square(parts).mean(axes, keepdims=True)
    return (parts / np.sqrt(variance + kernel.eps)).reshape(kernel.shape)


def checks(
    kernel: Norm,
    schedule: Schedule,
    arrays: Sequence[Stored],
    results: Sequence[Stored],
    generator: np.random.Generator,
) -> list[tuple[Outputs, Bounds]]:
    """For each result, where to look, everywhere at the same outputs, and what must be there."""
    *outer, channels = kernel.shape
    row, channel = of_elements((prod(outer), channels), schedule, generator)
    places = np.concatenate([row * channels + channel, *map(suspects, results)])
    outputs = np.unravel_index(places, kernel.shape)
    x, *extras = arrays
    values = normalised(kernel, x.astype(np.float64))[outputs]
    reach = TOLERANCE["f32"] * (1 + np.abs(values))
    picked = [pick(e, outputs) for e in extras]
    found = bounds_of_epilogue(kernel.epilogue, kernel.result_dtypes, values, reach, picked)
    return [(outputs, bounds) for bounds in found]
