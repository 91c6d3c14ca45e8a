"""A network as a user of MLX writes it."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from benchmarks.networks.sketch import BatchNorm, Convolution, GroupNorm, Layer, LayerNorm, Linear, Network, Scale
from convjit.backends import MLX_DTYPES


class Model(nn.Module):
    """`Ops` on arrays (N, height, width, C)."""

    def __init__(self, network: Network):
        super().__init__()
        self.layers = {name: _layer(layer) for name, layer in network.layers.items()}
        self._run = network.architecture.run
        self.set_dtype(MLX_DTYPES[network.dtype])
        self.eval()

    def __call__(self, x: mx.array) -> mx.array:
        return self._run(self, x)

    def conv(self, name: str, x: mx.array, *_: int, **__: int) -> mx.array:
        return self.layers[name](x)

    linear = batch_norm = layer_norm = group_norm = scale = conv

    def relu(self, x: mx.array) -> mx.array:
        return nn.relu(x)

    def relu6(self, x: mx.array) -> mx.array:
        return nn.relu6(x)

    def silu(self, x: mx.array) -> mx.array:
        return nn.silu(x)

    def sigmoid(self, x: mx.array) -> mx.array:
        return mx.sigmoid(x)

    def gelu(self, x: mx.array) -> mx.array:
        return nn.gelu(x)

    def add(self, x: mx.array, y: mx.array) -> mx.array:
        return x + y

    def multiply(self, x: mx.array, gate: mx.array) -> mx.array:
        return x * gate

    def max_pool(self, x: mx.array, kernel: int, stride: int, padding: int) -> mx.array:
        return nn.MaxPool2d(kernel, stride, padding)(x)

    def mean(self, x: mx.array) -> mx.array:
        return x.mean((1, 2))

    def mean_pixel(self, x: mx.array) -> mx.array:
        return x.mean((1, 2), keepdims=True)

    def upsample(self, x: mx.array) -> mx.array:
        return nn.Upsample(2, "nearest")(x)


def model_and_input(network: Network) -> tuple[Model, mx.array]:
    """Both of the network's type."""
    return Model(network), mx.array(network.x).astype(MLX_DTYPES[network.dtype])


class _Scale(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.weight = mx.ones(channels)

    def __call__(self, x: mx.array) -> mx.array:
        return x * self.weight


def _layer(layer: Layer) -> nn.Module:
    made = _empty(layer)
    made.weight = mx.array(layer.weight)
    if not isinstance(layer, Scale) and layer.bias is not None:
        made.bias = mx.array(layer.bias)
    if isinstance(layer, BatchNorm):
        made.running_mean, made.running_var = mx.array(layer.mean), mx.array(layer.variance)
    return made


def _empty(layer: Layer) -> nn.Module:
    channels = len(layer.weight)
    match layer:
        case Convolution(weight, bias, stride, padding, groups):
            inputs, kernel = groups * weight.shape[-1], weight.shape[1]
            return nn.Conv2d(inputs, channels, kernel, stride, padding, groups=groups, bias=bias is not None)
        case Linear(weight):
            return nn.Linear(weight.shape[1], channels)
        case BatchNorm():
            return nn.BatchNorm(channels, layer.epsilon)
        case LayerNorm():
            return nn.LayerNorm(channels, layer.epsilon)
        case GroupNorm():
            return nn.GroupNorm(layer.groups, channels, layer.epsilon, pytorch_compatible=True)
        case _:
            return _Scale(channels)
