"""The weights of a network, and what it computes: its function, run on shapes."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from benchmarks.layers.network import Array, Dtype, rounded
from benchmarks.networks.architectures import Architecture

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Convolution:
    """`weight` is (O, height, width, C / groups)."""

    weight: Array
    bias: Array | None
    stride: int
    padding: int
    groups: int


@dataclass(frozen=True, slots=True)
class Linear:
    """`weight` is (O, C)."""

    weight: Array
    bias: Array


@dataclass(frozen=True, slots=True)
class BatchNorm:
    weight: Array
    bias: Array
    mean: Array
    variance: Array
    epsilon: float = 1e-5


@dataclass(frozen=True, slots=True)
class LayerNorm:
    weight: Array
    bias: Array
    epsilon: float = 1e-6


@dataclass(frozen=True, slots=True)
class GroupNorm:
    weight: Array
    bias: Array
    groups: int
    epsilon: float = 1e-6


@dataclass(frozen=True, slots=True)
class Scale:
    weight: Array


Layer = Convolution | Linear | BatchNorm | LayerNorm | GroupNorm | Scale


@dataclass(frozen=True, slots=True)
class Network:
    """A network that every engine can run.

    Attributes:
        architecture: its function.
        dtype: how numbers are stored. The arrays below hold float32, rounded to it.
        layers: what has weights, by name.
        x: the input (N, height, width, C).
        flops: of all convolutions and linear layers.
    """

    architecture: Architecture
    dtype: Dtype
    layers: dict[str, Layer]
    x: Array
    flops: int


def network(architecture: Architecture, batch: int, size: int | None = None, dtype: Dtype = "f32") -> Network:
    """Random weights, the same in every process: values neither vanish nor overflow.

    Args:
        architecture: what to make.
        batch: images of the input.
        size: height and width of the input, if they are not the architecture's.
        dtype: how numbers are stored.
    """
    size = size or architecture.size
    shape = (batch, size, size, architecture.channels)
    sketch = _Sketch(architecture.gain, dtype)
    architecture.run(sketch, shape)
    x = rounded(np.random.default_rng(1).standard_normal(shape, np.float32), dtype)
    return Network(architecture, dtype, sketch.layers, x, sketch.flops)


class _Sketch:
    """`Ops` on shapes, which makes the weights."""

    def __init__(self, gain: float, dtype: Dtype) -> None:
        self.layers: dict[str, Layer] = {}
        self.flops = 0
        self._gain, self._dtype = gain, dtype
        self._random = np.random.default_rng(0)

    def conv(
        self,
        name: str,
        x: Shape,
        channels: int,
        kernel: int,
        *,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        bias: bool = True,
    ) -> Shape:
        weight = self._matrix((channels, kernel, kernel, x[-1] // groups))
        self._add(name, Convolution(weight, self._around(0, channels) if bias else None, stride, padding, groups))
        y = (*self._window(x, kernel, stride, padding), channels)
        self.flops += 2 * prod(y) * prod(weight.shape[1:])
        return y

    def linear(self, name: str, x: Shape, channels: int) -> Shape:
        self._add(name, Linear(self._matrix((channels, x[-1])), self._around(0, channels)))
        self.flops += 2 * prod(x) * channels
        return (*x[:-1], channels)

    def batch_norm(self, name: str, x: Shape) -> Shape:
        weight, bias, mean = (self._around(center, x[-1]) for center in (1, 0, 0))
        return self._add(name, BatchNorm(weight, bias, mean, self._around(1, x[-1])), x)

    def layer_norm(self, name: str, x: Shape) -> Shape:
        return self._add(name, LayerNorm(self._around(1, x[-1]), self._around(0, x[-1])), x)

    def group_norm(self, name: str, x: Shape, groups: int) -> Shape:
        return self._add(name, GroupNorm(self._around(1, x[-1]), self._around(0, x[-1]), groups), x)

    def scale(self, name: str, x: Shape) -> Shape:
        return self._add(name, Scale(self._around(0.3, x[-1])), x)

    def relu(self, x: Shape) -> Shape:
        return x

    relu6 = silu = sigmoid = gelu = relu

    def add(self, x: Shape, y: Shape) -> Shape:
        assert x == y
        return x

    def multiply(self, x: Shape, gate: Shape) -> Shape:
        assert gate == (x[0], 1, 1, x[-1])
        return x

    def max_pool(self, x: Shape, kernel: int, stride: int, padding: int) -> Shape:
        return (*self._window(x, kernel, stride, padding), x[-1])

    def mean(self, x: Shape) -> Shape:
        return x[0], x[-1]

    def mean_pixel(self, x: Shape) -> Shape:
        return x[0], 1, 1, x[-1]

    def upsample(self, x: Shape) -> Shape:
        batch, height, width, channels = x
        return batch, 2 * height, 2 * width, channels

    def _window(self, x: Shape, kernel: int, stride: int, padding: int) -> Shape:
        batch, *size, _ = x
        return (batch, *((n + 2 * padding - kernel) // stride + 1 for n in size))

    def _matrix(self, shape: Shape) -> Array:
        scale = (self._gain / prod(shape[1:])) ** 0.5
        return rounded(scale * self._random.standard_normal(shape, np.float32), self._dtype)

    def _around(self, center: float, channels: int) -> Array:
        values = center + 0.2 * (2 * self._random.random(channels, np.float32) - 1)
        return rounded(values.astype(np.float32), self._dtype)

    def _add(self, name: str, layer: Layer, shape: Shape = ()) -> Shape:
        assert name not in self.layers
        self.layers[name] = layer
        return shape
