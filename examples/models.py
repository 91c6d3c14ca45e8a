"""Networks that the demo, the benchmarks and the tests share: plain MLX, channels last, random weights.

`ResNet50` is torchvision's architecture. The others are as small as a network of their kind can be.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from math import prod
from typing import TypeVar

import mlx.core as mx
import mlx.nn as nn

M = TypeVar("M", bound=nn.Module)


def ready(model: M, seed: int = 0) -> M:
    """`model` in evaluation mode, with He-initialised convolutions and BatchNorms that are no identities."""
    keys = iter(mx.random.split(mx.random.key(seed), 4 * len(model.modules())))

    def uniform(low: float, high: float, like: mx.array) -> mx.array:
        return mx.random.uniform(low, high, like.shape, key=next(keys))

    for module in model.modules():
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            fan_in = prod(module.weight.shape[1:])
            module.weight = mx.random.normal(module.weight.shape, key=next(keys)) * (2 / fan_in) ** 0.5
        if isinstance(module, nn.BatchNorm):
            module.weight = uniform(0.5, 1.0, module.weight)
            module.bias = uniform(-0.2, 0.2, module.bias)
            module.running_mean = uniform(-0.2, 0.2, module.running_mean)
            module.running_var = uniform(0.8, 1.6, module.running_var)
    model.eval()
    mx.eval(model.parameters())
    return model


class ConvNorm(nn.Module):
    """Convolution, BatchNorm, activation."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        activation: Callable[[mx.array], mx.array] | None = nn.relu,
    ):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm(outputs)
        self.activation = activation

    def __call__(self, x: mx.array) -> mx.array:
        y = self.norm(self.conv(x))
        return y if self.activation is None else self.activation(y)


class Bottleneck(nn.Module):
    """ResNet's 1x1, 3x3 (which strides), 1x1 with four times the channels, and a shortcut."""

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        self.conv1 = ConvNorm(inputs, width, 1)
        self.conv2 = ConvNorm(width, width, 3, stride)
        self.conv3 = ConvNorm(width, 4 * width, 1, activation=None)
        if stride != 1 or inputs != 4 * width:
            self.shortcut = ConvNorm(inputs, 4 * width, 1, stride, activation=None)

    def __call__(self, x: mx.array) -> mx.array:
        residual = self.shortcut(x) if "shortcut" in self else x
        return nn.relu(self.conv3(self.conv2(self.conv1(x))) + residual)


class ResNet50(nn.Module):
    """ResNet-50 of (N, 224, 224, 3) to (N, classes): 53 convolutions, 8.2 GFLOP an image."""

    def __init__(self, classes: int = 1000):
        super().__init__()
        self.stem = ConvNorm(3, 64, 7, 2)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.layers: list[nn.Module] = []
        inputs = 64
        for width, depth, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
            for i in range(depth):
                self.layers.append(Bottleneck(inputs, width, stride if i == 0 else 1))
                inputs = 4 * width
        self.head = nn.Linear(inputs, classes)

    def __call__(self, x: mx.array) -> mx.array:
        x = self.pool(self.stem(x))
        for layer in self.layers:
            x = layer(x)
        return self.head(x.mean((1, 2)))


class Residual(nn.Module):
    """ResNet's basic block: two 3x3 convolutions, the first of which strides, around a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__()
        self.conv1 = ConvNorm(inputs, outputs, 3, stride)
        self.conv2 = ConvNorm(outputs, outputs, 3, activation=None)
        self.shortcut = ConvNorm(inputs, outputs, 1, stride, activation=None) if inputs != outputs else None

    def __call__(self, x: mx.array) -> mx.array:
        y = self.conv2(self.conv1(x))
        return nn.relu(y + (self.shortcut(x) if self.shortcut else x))


class ResNet20(nn.Module):
    """ResNet-20 of (N, 32, 32, 3) to (N, classes), as He et al. (2015) train it on CIFAR-10: 21 convolutions."""

    def __init__(self, classes: int = 10):
        super().__init__()
        self.stem = ConvNorm(3, 16, 3)
        widths = [16, 16, 16, 16, 32, 32, 32, 64, 64, 64]
        self.layers = [Residual(i, o, 1 if i == o else 2) for i, o in itertools.pairwise(widths)]
        self.head = nn.Linear(64, classes)

    def __call__(self, x: mx.array) -> mx.array:
        x = self.stem(x)
        for layer in self.layers:
            x = layer(x)
        return self.head(x.mean((1, 2)))


class Digits(nn.Module):
    """A small ResNet for the 8x8 images of scikit-learn's handwritten digits: (N, 8, 8, 1) to (N, 10)."""

    def __init__(self):
        super().__init__()
        self.stem = ConvNorm(1, 16, 3)
        self.block1 = Residual(16, 16)
        self.down = ConvNorm(16, 32, 3, 2)
        self.block2 = Residual(32, 32)
        self.head = nn.Linear(32, 10)

    def __call__(self, x: mx.array) -> mx.array:
        x = self.block2(self.down(self.block1(self.stem(x))))
        return self.head(x.mean((1, 2)))


class SqueezeExcite(nn.Module):
    """A gate for each channel, from the mean of all."""

    def __init__(self, channels: int):
        super().__init__()
        self.squeeze = nn.Conv2d(channels, channels // 4, 1)
        self.excite = nn.Conv2d(channels // 4, channels, 1)

    def __call__(self, x: mx.array) -> mx.array:
        gate = self.excite(nn.relu(self.squeeze(x.mean((1, 2), keepdims=True))))
        return x * mx.sigmoid(gate)


class MobileBlock(nn.Module):
    """MobileNetV3's inverted residual: expand, depthwise, squeeze and excite, project: (N, 14, 14, 16) to the same."""

    def __init__(self, channels: int = 16, expanded: int = 48):
        super().__init__()
        self.expand = ConvNorm(channels, expanded, 1, activation=nn.hardswish)
        self.depthwise = ConvNorm(expanded, expanded, 5, groups=expanded, activation=nn.hardswish)
        self.gate = SqueezeExcite(expanded)
        self.project = ConvNorm(expanded, channels, 1, activation=None)

    def __call__(self, x: mx.array) -> mx.array:
        return x + self.project(self.gate(self.depthwise(self.expand(x))))


class NormConv(nn.Module):
    """GroupNorm, SiLU, convolution: the order of diffusion models."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.norm = nn.GroupNorm(4, inputs, pytorch_compatible=True)
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)

    def __call__(self, x: mx.array) -> mx.array:
        return self.conv(nn.silu(self.norm(x)))


class UNet(nn.Module):
    """One level of a diffusion UNet, down and up again: (N, 16, 16, 3) to the same."""

    def __init__(self, width: int = 16):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.outer = NormConv(width, width)
        self.down = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.inner = NormConv(2 * width, 2 * width)
        self.up = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.head = NormConv(2 * width, 3)

    def __call__(self, x: mx.array) -> mx.array:
        x = self.stem(x)
        skip = x + self.outer(x)
        x = self.down(skip)
        x = x + self.inner(x)
        return self.head(mx.concatenate([self.up(x), skip], axis=-1))


class AudioEncoder(nn.Module):
    """Whisper's stem before one attention-free block: (N, 64, 40) mel frames to (N, 32, 32)."""

    def __init__(self, mels: int = 40, width: int = 32):
        super().__init__()
        self.conv1 = nn.Conv1d(mels, width, 3, padding=1)
        self.conv2 = nn.Conv1d(width, width, 3, stride=2, padding=1)
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)

    def __call__(self, x: mx.array) -> mx.array:
        x = nn.gelu(self.conv2(nn.gelu(self.conv1(x))))
        return x + self.down(nn.gelu(self.up(self.norm(x))))


class Video(nn.Module):
    """A 3D convolution network: (N, 6, 12, 12, 3) to (N, 5)."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv3d(3, 8, 3, padding=1)
        self.conv2 = nn.Conv3d(8, 16, (1, 3, 3), stride=(1, 2, 2))
        self.head = nn.Linear(16, 5)

    def __call__(self, x: mx.array) -> mx.array:
        x = nn.leaky_relu(self.conv2(nn.relu(self.conv1(x))))
        return self.head(x.mean((1, 2, 3)))


SMALL: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "digits": (Digits, (2, 8, 8, 1)),
    "mobile": (MobileBlock, (1, 14, 14, 16)),
    "unet": (UNet, (1, 16, 16, 3)),
    "audio": (AudioEncoder, (1, 64, 40)),
    "video": (Video, (1, 6, 12, 12, 3)),
}
"""The small networks by name, with an input shape for each."""
