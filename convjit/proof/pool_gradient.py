"""How gradients of pools prove themselves: what they read, which results are looked at, and what these must be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from math import ceil, prod

import mlx.core as mx
import numpy as np

from convjit.backends import MLX_DTYPES
from convjit.kernel import PoolGradient
from convjit.proof.oracle import TOLERANCE, Array, Bounds, Outputs, Stored
from convjit.proof.samples import of_elements, suspects
from convjit.schedule import Schedule

_LEVELS = 8
"""Different numbers of either sign: few, so that windows have several maxima."""


def inputs(kernel: PoolGradient, generator: np.random.Generator) -> list[mx.array]:
    """Numbers with ties, their maxima, and what comes for these."""
    geometry = kernel.geometry
    x = generator.integers(-_LEVELS, _LEVELS + 1, geometry.in_shape) / 4
    y = np.full(geometry.out_shape, -np.inf)
    for taps in _taps(kernel, _padded(kernel, x, -np.inf)):
        np.maximum(y, taps, out=y)
    dy = generator.uniform(0.25, 1.75, geometry.out_shape)
    return [mx.array(a.astype(np.float32)).astype(MLX_DTYPES[kernel.dtype]) for a in (x, y, dy)]


def _gradient(kernel: PoolGradient, x: Array, y: Array, dy: Array) -> Array:
    """What comes for each element of the input."""
    padded = _padded(kernel, x, -np.inf)
    ties = sum((taps == y).astype(np.float64) for taps in _taps(kernel, padded))
    parts = dy / ties
    found = _padded(kernel, np.zeros_like(x), 0)
    for of_x, to in zip(_taps(kernel, padded), _taps(kernel, found), strict=True):
        to += parts * (of_x == y)
    inside = (slice(lo, lo + n) for lo, n in zip(kernel.geometry.window.pad_lo, kernel.geometry.in_size, strict=True))
    return found[(slice(None), *inside)]


def checks(
    kernel: PoolGradient,
    schedule: Schedule,
    arrays: Sequence[Stored],
    results: Sequence[Stored],
    generator: np.random.Generator,
) -> list[tuple[Outputs, Bounds]]:
    """Where to look, and what must be there. What comes from several windows may be rounded behind each."""
    shape = kernel.geometry.in_shape
    *pixel, channel = of_elements(shape, schedule, generator)
    places = np.concatenate([np.ravel_multi_index((*pixel, channel), shape), suspects(results[0])])
    outputs = np.unravel_index(places, shape)
    x, y, dy = (a.astype(np.float64) for a in arrays)
    exact = _gradient(kernel, x, y, dy)[outputs]
    windows = prod(ceil(n / s) for n, s in zip(kernel.geometry.kernel, kernel.geometry.window.strides, strict=True))
    slack = TOLERANCE[kernel.dtype] * (1 + windows) * exact
    return [(outputs, Bounds(exact, exact - slack, exact + slack))]


def _padded(kernel: PoolGradient, x: Array, nothing: float) -> Array:
    window = kernel.geometry.window
    pads = [(0, 0), *zip(window.pad_lo, window.pad_hi, strict=True), (0, 0)]
    return np.pad(x, pads, constant_values=nothing)


def _taps(kernel: PoolGradient, padded: Array) -> Iterator[Array]:
    """For each tap of the window, what it meets for every output."""
    geometry, strides = kernel.geometry, kernel.geometry.window.strides
    for tap in product(*map(range, geometry.kernel)):
        along = (
            slice(first, first + (n - 1) * stride + 1, stride)
            for first, n, stride in zip(tap, geometry.out_size, strides, strict=True)
        )
        yield padded[(slice(None), *along)]
