"""The networks, each defined once, as a function of `Ops`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.networks.ops import Ops, T


@dataclass(frozen=True, slots=True)
class Architecture:
    """Attributes:
    title: what it is, in words.
    run: (ops, input) -> output.
    size: height and width of the input.
    channels: of the input.
    gain: variance of a random layer's results, relative to that of its inputs: what activations take away.
    """

    title: str
    run: Callable[[Ops[Any], Any], Any]
    size: int
    channels: int = 3
    gain: float = 2.0


def resnet50(ops: Ops[T], x: T) -> T:
    """torchvision's, after He et al. (2015)."""
    x = ops.relu(_conv_norm(ops, "stem", x, 64, 7, stride=2))
    x = ops.max_pool(x, 3, 2, 1)
    for stage, (width, depth) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        for block in range(depth):
            x = _bottleneck(ops, f"{stage}/{block}", x, width, 2 if stage and not block else 1, not block)
    return ops.linear("head", ops.mean(x), 1000)


def _bottleneck(ops: Ops[T], name: str, x: T, width: int, stride: int, projects: bool) -> T:
    y = ops.relu(_conv_norm(ops, f"{name}/1", x, width, 1))
    y = ops.relu(_conv_norm(ops, f"{name}/2", y, width, 3, stride=stride))
    y = _conv_norm(ops, f"{name}/3", y, 4 * width, 1)
    return ops.relu(ops.add(y, _conv_norm(ops, f"{name}/shortcut", x, 4 * width, 1, stride=stride) if projects else x))


def mobilenet_v2(ops: Ops[T], x: T) -> T:
    """torchvision's, after Sandler et al. (2018)."""
    x = ops.relu6(_conv_norm(ops, "stem", x, 32, 3, stride=2))
    inputs = 32
    stages = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for stage, (factor, outputs, depth, first_stride) in enumerate(stages):
        for block in range(depth):
            name, stride, expanded = f"{stage}/{block}", 1 if block else first_stride, factor * inputs
            y = ops.relu6(_conv_norm(ops, f"{name}/expand", x, expanded, 1)) if factor > 1 else x
            y = ops.relu6(_conv_norm(ops, f"{name}/depthwise", y, expanded, 3, stride=stride, groups=expanded))
            y = _conv_norm(ops, f"{name}/project", y, outputs, 1)
            x = ops.add(x, y) if block else y
            inputs = outputs
    x = ops.relu6(_conv_norm(ops, "last", x, 1280, 1))
    return ops.linear("head", ops.mean(x), 1000)


def efficientnet_b0(ops: Ops[T], x: T) -> T:
    """torchvision's, after Tan and Le (2019)."""
    x = ops.silu(_conv_norm(ops, "stem", x, 32, 3, stride=2))
    inputs = 32
    stages = (
        (1, 16, 1, 1, 3),
        (6, 24, 2, 2, 3),
        (6, 40, 2, 2, 5),
        (6, 80, 3, 2, 3),
        (6, 112, 3, 1, 5),
        (6, 192, 4, 2, 5),
        (6, 320, 1, 1, 3),
    )
    for stage, (factor, outputs, depth, first_stride, kernel) in enumerate(stages):
        for block in range(depth):
            name, stride, expanded = f"{stage}/{block}", 1 if block else first_stride, factor * inputs
            y = ops.silu(_conv_norm(ops, f"{name}/expand", x, expanded, 1)) if factor > 1 else x
            y = ops.silu(_conv_norm(ops, f"{name}/depthwise", y, expanded, kernel, stride=stride, groups=expanded))
            y = ops.multiply(y, _gate(ops, name, y, inputs // 4, expanded))
            y = _conv_norm(ops, f"{name}/project", y, outputs, 1)
            x = ops.add(x, y) if block else y
            inputs = outputs
    x = ops.silu(_conv_norm(ops, "last", x, 1280, 1))
    return ops.linear("head", ops.mean(x), 1000)


def _gate(ops: Ops[T], name: str, x: T, squeezed: int, channels: int) -> T:
    """Squeeze and excite."""
    y = ops.silu(ops.conv(f"{name}/squeeze", ops.mean_pixel(x), squeezed, 1))
    return ops.sigmoid(ops.conv(f"{name}/excite", y, channels, 1))


def convnext_tiny(ops: Ops[T], x: T) -> T:
    """torchvision's, after Liu et al. (2022); the pointwise layers are linear ones."""
    x = ops.layer_norm("stem/norm", ops.conv("stem", x, 96, 4, stride=4))
    for stage, (width, depth) in enumerate(((96, 3), (192, 3), (384, 9), (768, 3))):
        if stage:
            x = ops.conv(f"{stage}/down", ops.layer_norm(f"{stage}/norm", x), width, 2, stride=2)
        for block in range(depth):
            name = f"{stage}/{block}"
            y = ops.conv(f"{name}/depthwise", x, width, 7, padding=3, groups=width)
            y = ops.linear(f"{name}/expand", ops.layer_norm(f"{name}/norm", y), 4 * width)
            y = ops.linear(f"{name}/project", ops.gelu(y), width)
            x = ops.add(x, ops.scale(f"{name}/scale", y))
    return ops.linear("head", ops.layer_norm("norm", ops.mean(x)), 1000)


def vae_decoder(ops: Ops[T], x: T) -> T:
    """Stable Diffusion's (Rombach et al., 2022) with half the channels and without its attention: latents to an image
    of eight times the height and width.
    """
    x = ops.conv("stem", x, 256, 3, padding=1)
    for block in range(2):
        x = _residual(ops, f"middle/{block}", x, 256, False)
    inputs = 256
    for stage, width in enumerate((256, 256, 128, 64)):
        for block in range(3):
            x = _residual(ops, f"{stage}/{block}", x, width, inputs != width)
            inputs = width
        if stage < 3:
            x = ops.conv(f"{stage}/up", ops.upsample(x), width, 3, padding=1)
    return ops.conv("head", ops.silu(ops.group_norm("norm", x, 32)), 3, 3, padding=1)


def _residual(ops: Ops[T], name: str, x: T, width: int, projects: bool) -> T:
    y = ops.conv(f"{name}/1", ops.silu(ops.group_norm(f"{name}/norm1", x, 32)), width, 3, padding=1)
    y = ops.conv(f"{name}/2", ops.silu(ops.group_norm(f"{name}/norm2", y, 32)), width, 3, padding=1)
    return ops.add(ops.conv(f"{name}/shortcut", x, width, 1) if projects else x, y)


def _conv_norm(ops: Ops[T], name: str, x: T, channels: int, kernel: int, stride: int = 1, groups: int = 1) -> T:
    y = ops.conv(name, x, channels, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False)
    return ops.batch_norm(f"{name}/norm", y)


ARCHITECTURES: dict[str, Architecture] = {
    "resnet50": Architecture("ResNet-50", resnet50, 224, gain=1.0),
    "mobilenet_v2": Architecture("MobileNetV2", mobilenet_v2, 224),
    "efficientnet_b0": Architecture("EfficientNet-B0", efficientnet_b0, 224, gain=2.3),
    "convnext_tiny": Architecture("ConvNeXt-Tiny", convnext_tiny, 224),
    "vae_decoder": Architecture("VAE decoder", vae_decoder, 12, 4),
}
