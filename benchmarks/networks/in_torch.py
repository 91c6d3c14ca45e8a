"""A network as a user of PyTorch writes it, and as ONNX exported from that."""

from __future__ import annotations

import io
import warnings

import torch
import torch.nn as nn
import torch.nn.functional as F

from benchmarks.layers.frameworks import channels_first
from benchmarks.networks.sketch import BatchNorm, Convolution, GroupNorm, Layer, LayerNorm, Linear, Network, Scale


class Model(nn.Module):
    """`Ops` on tensors (N, C, height, width)."""

    def __init__(self, network: Network):
        super().__init__()
        self.layers = nn.ModuleDict({name: _layer(layer) for name, layer in network.layers.items()})
        self._run = network.architecture.run
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._run(self, x)

    def conv(self, name: str, x: torch.Tensor, *_: int, **__: int) -> torch.Tensor:
        return self.layers[name](x)

    linear = batch_norm = layer_norm = group_norm = scale = conv

    def relu(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(x)

    def relu6(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu6(x)

    def silu(self, x: torch.Tensor) -> torch.Tensor:
        return F.silu(x)

    def sigmoid(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(x)

    def gelu(self, x: torch.Tensor) -> torch.Tensor:
        return F.gelu(x)

    def add(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + y

    def multiply(self, x: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        return x * gate

    def max_pool(self, x: torch.Tensor, kernel: int, stride: int, padding: int) -> torch.Tensor:
        return F.max_pool2d(x, kernel, stride, padding)

    def mean(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))

    def mean_pixel(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3), keepdim=True)

    def upsample(self, x: torch.Tensor) -> torch.Tensor:
        return F.interpolate(x, scale_factor=2.0, mode="nearest")


class _Last(nn.Module):
    """A layer along the channels."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.ndim == 2:
            return self.layer(x)
        return self.layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _Scale(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight[:, None, None]


def _layer(layer: Layer) -> nn.Module:
    made = _empty(layer)
    weight = channels_first(layer.weight) if isinstance(layer, Convolution) else layer.weight
    state = {"weight": torch.tensor(weight)}
    if not isinstance(layer, Scale) and layer.bias is not None:
        state["bias"] = torch.tensor(layer.bias)
    if isinstance(layer, BatchNorm):
        state |= {"running_mean": torch.tensor(layer.mean), "running_var": torch.tensor(layer.variance)}
        state["num_batches_tracked"] = torch.tensor(0)
    made.load_state_dict(state)
    return _Last(made) if isinstance(layer, Linear | LayerNorm) else made


def _empty(layer: Layer) -> nn.Module:
    channels = len(layer.weight)
    match layer:
        case Convolution(weight, bias, stride, padding, groups):
            inputs, kernel = groups * weight.shape[-1], weight.shape[1]
            return nn.Conv2d(inputs, channels, kernel, stride, padding, groups=groups, bias=bias is not None)
        case Linear(weight):
            return nn.Linear(weight.shape[1], channels)
        case BatchNorm():
            return nn.BatchNorm2d(channels, layer.epsilon)
        case LayerNorm():
            return nn.LayerNorm(channels, layer.epsilon)
        case GroupNorm():
            return nn.GroupNorm(layer.groups, channels, layer.epsilon)
        case _:
            return _Scale(channels)


def onnx_model(network: Network) -> bytes:
    """With an input "x" and a result "y"."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # this exporter is deprecated, but needs no further package
        x = torch.tensor(channels_first(network.x))
        torch.onnx.export(Model(network), (x,), file, input_names=["x"], output_names=["y"], dynamo=False)
    return file.getvalue()
