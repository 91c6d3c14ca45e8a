"""What is measured: convolutions of one geometry one behind the other, each with weights, bias and ReLU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Literal

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from benchmarks.problems import Problem, shrink_to
from convjit.geometry import Geometry

Array = npt.NDArray[np.float32]
Dtype = Literal["f32", "bf16"]

LARGEST_FLOPS = 20e9
"""Of one convolution: a larger problem loses images, then extents."""

CHAIN = 9
"""Convolutions of a chain: their weights together are larger than the nearer caches."""


@dataclass(frozen=True, slots=True)
class Network:
    """`len(weights)` convolutions of one geometry, the result of each the input of the next.

    Attributes:
        geometry: of each.
        dtype: how numbers are stored. The arrays below hold float32, rounded to it.
        x: the input (N, *spatial, C).
        weights: (O, *kernel, C / groups) each, all different.
        biases: (O,) each.
    """

    geometry: Geometry
    dtype: Dtype
    x: Array
    weights: tuple[Array, ...]
    biases: tuple[Array, ...]


@dataclass(frozen=True, slots=True)
class Way:
    """An engine that is ready to run a network.

    Attributes:
        run: runs it once; the result is complete when it returns.
        output: runs it and gives the result (N, *out, O).
    """

    run: Callable[[], object]
    output: Callable[[], Array]


class Refused(Exception):
    """An engine does not do such a network; the message tells why."""


def geometry_of(problem: Problem) -> Geometry:
    """What of a problem is measured."""
    return shrink_to(problem.geometry, LARGEST_FLOPS)


def can_chain(geometry: Geometry) -> bool:
    """Can the result be the input of the same convolution?"""
    return geometry.in_shape == geometry.out_shape


def rounded(values: Array, dtype: Dtype) -> Array:
    """As they are stored, in float32."""
    return values if dtype == "f32" else np.array(mx.array(values).astype(mx.bfloat16).astype(mx.float32))


def network(geometry: Geometry, dtype: Dtype, depth: int = 1) -> Network:
    """Random numbers, the same in every process; sums have a variance of about 1."""
    random = np.random.default_rng(0)

    def normal(shape: tuple[int, ...], scale: float) -> Array:
        return rounded(scale * random.standard_normal(shape, np.float32), dtype)

    terms = prod(geometry.weight_shape[1:]) / prod(geometry.window.input_dilation)
    x = normal(geometry.in_shape, 1.0)
    weight = normal(geometry.weight_shape, max(terms, 1.0) ** -0.5)
    weights = tuple(np.roll(weight, layer, axis=0) for layer in range(depth))
    biases = tuple(normal((geometry.out_channels,), 0.1) for _ in range(depth))
    return Network(geometry, dtype, x, weights, biases)
