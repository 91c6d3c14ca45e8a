"""Random small networks, and the ways in which a user changes one between two calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten, tree_map

ACTIVATIONS: list[Callable[[mx.array], mx.array]] = [
    *(nn.relu, nn.silu, nn.gelu, nn.hardswish, nn.leaky_relu, nn.mish, mx.tanh, nn.elu, nn.softplus, nn.relu6),
    lambda x: x,
]


class ConvNorm(nn.Module):
    def __init__(self, conv: nn.Module, norm: nn.Module, act: Callable[[mx.array], mx.array]):
        super().__init__()
        self.conv, self.norm, self.act = conv, norm, act

    def __call__(self, x: mx.array) -> mx.array:
        return self.act(self.norm(self.conv(x)))


class PreNorm(nn.Module):
    def __init__(self, channels: int, body: nn.Module):
        super().__init__()
        self.norm, self.body = nn.BatchNorm(channels), body

    def __call__(self, x: mx.array) -> mx.array:
        return self.body(nn.relu(self.norm(x)))


class Residual(nn.Module):
    def __init__(self, body: nn.Module, act: Callable[[mx.array], mx.array]):
        super().__init__()
        self.body, self.act, self.gain = body, act, mx.array(0.3)

    def __call__(self, x: mx.array) -> mx.array:
        return self.act(x + self.body(x) * self.gain)


class Branches(nn.Module):
    def __init__(self, branches: list[nn.Module], concatenate: bool):
        super().__init__()
        self.branches, self.concatenate = branches, concatenate

    def __call__(self, x: mx.array) -> mx.array:
        results = [branch(x) for branch in self.branches]
        return mx.concatenate(results, axis=-1) if self.concatenate else mx.add(*results)


class Gate(nn.Module):
    """Squeeze and excite."""

    def __init__(self, channels: int):
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, 2, 1), nn.Conv2d(2, channels, 1)

    def __call__(self, x: mx.array) -> mx.array:
        pooled = mx.mean(x, axis=(1, 2), keepdims=True)
        return x * mx.sigmoid(self.up(nn.relu(self.down(pooled))))


class Pixelwise(nn.Module):
    """ConvNeXt's: two linear layers on each pixel, a factor for each channel."""

    def __init__(self, channels: int, norm: nn.Module):
        super().__init__()
        self.norm, self.up, self.down = norm, nn.Linear(channels, 3 * channels), nn.Linear(3 * channels, channels)
        self.gamma = mx.random.normal((channels,))

    def __call__(self, x: mx.array) -> mx.array:
        return x + self.gamma * self.down(nn.gelu(self.up(self.norm(x))))


class Attention(nn.Module):
    """Every pixel looks at all others of its image."""

    def __init__(self, channels: int):
        super().__init__()
        self.attention = nn.MultiHeadAttention(channels, 1 + (channels % 2 == 0))

    def __call__(self, x: mx.array) -> mx.array:
        pixels = mx.flatten(x, 1, 2)
        return x + self.attention(pixels, pixels, pixels).reshape(x.shape)


class Gated(nn.Module):
    """One half of the channels opens the other; both are shuffled, as in ShuffleNet."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, 2 * channels, 1)

    def __call__(self, x: mx.array) -> mx.array:
        y = self.conv(x)
        shuffled = mx.flatten(mx.swapaxes(mx.unflatten(y, -1, (2, -1)), -1, -2), -2)
        value, gate = mx.split(shuffled, 2, axis=-1)
        return value * mx.sigmoid(gate)


class Dense(nn.Module):
    """DenseNet's: each convolution reads what all before it made; a frame is cut off at the end."""

    def __init__(self, channels: int):
        super().__init__()
        self.convs = [nn.Conv2d(channels + 4 * n, 4, 3, padding=1) for n in range(2)]

    def __call__(self, x: mx.array) -> mx.array:
        for conv in self.convs:
            x = mx.concatenate([x, nn.relu(conv(x))], axis=-1)
        return x[:, : max(1, x.shape[1] - 1), ::2]


class Standardised(nn.Module):
    """A norm along any axes, as users write them."""

    def __init__(self, axes: tuple[int, ...]):
        super().__init__()
        self.axes = axes

    def __call__(self, x: mx.array) -> mx.array:
        difference = x - x.mean(self.axes, keepdims=True)
        return difference / mx.sqrt((difference**2).mean(self.axes, keepdims=True) + 1e-3)


class Tied(nn.Module):
    """One weight in three convolutions, halved in one and transposed in another."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = mx.random.normal((channels, 3, 3, channels)) * 0.1

    def __call__(self, x: mx.array) -> mx.array:
        y = nn.silu(mx.conv2d(x, self.weight, padding=1))
        turned = mx.transpose(self.weight, (3, 1, 2, 0))
        return mx.conv2d(y, self.weight * 0.5, padding=1) + mx.conv2d(x, turned, padding=1)


class ComputedWeight(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.channels, self.weight_of = channels, nn.Linear(channels, channels**2)

    def __call__(self, x: mx.array) -> mx.array:
        weight = self.weight_of(mx.mean(x, axis=(0, 1, 2))).reshape(self.channels, 1, 1, self.channels)
        return nn.relu(mx.conv2d(x, weight))


class Padded(nn.Module):
    def __init__(self, before: int, after: int, value: float):
        super().__init__()
        self.widths, self.value = ((0, 0), (before, after), (after, before), (0, 0)), value

    def __call__(self, x: mx.array) -> mx.array:
        return mx.pad(x, self.widths, constant_values=self.value)


class Heads(nn.Module):
    def __init__(self, body: nn.Module, channels: int):
        super().__init__()
        self.body, self.box, self.score = body, nn.Conv2d(channels, 4, 3, padding=1), nn.Conv2d(channels, 5, 1)

    def __call__(self, x: mx.array) -> dict[str, Any]:
        y = self.body(x)
        score = self.score(y)
        return {"box": self.box(y), "scores": [score, mx.softmax(score, axis=-1)], "features": y, "input": x}


def _norm(rng: np.random.Generator, channels: int) -> nn.Module:
    match rng.integers(10):
        case 0 | 1 | 2:
            norm = nn.BatchNorm(channels, affine=bool(rng.random() < 0.8))
            norm.running_mean, norm.running_var = mx.random.normal((channels,)), mx.random.uniform(0.5, 2, (channels,))
            return norm
        case 3 | 4:
            groups = int(rng.choice([n for n in range(1, channels + 1) if channels % n == 0]))
            affine, as_pytorch = (bool(rng.random() < share) for share in (0.8, 0.5))
            return nn.GroupNorm(groups, channels, affine=affine, pytorch_compatible=as_pytorch)
        case 5:
            return nn.LayerNorm(channels)
        case 6:
            by_hand = Standardised(tuple(axis for axis in (1, 2, 3) if rng.random() < 0.6) or (3,))
            return [nn.RMSNorm(channels), nn.InstanceNorm(channels, affine=True), by_hand][int(rng.integers(3))]
        case _:
            return nn.Identity()


def _conv_norm(rng: np.random.Generator, channels: int, out: int, kernel: int, **options: int) -> nn.Module:
    padding = kernel // 2 * options.get("dilation", 1)
    conv = nn.Conv2d(channels, out, kernel, padding=padding, bias=bool(rng.random() < 0.6), **options)
    return ConvNorm(conv, _norm(rng, out), ACTIVATIONS[int(rng.integers(len(ACTIVATIONS)))])


def _block(rng: np.random.Generator, channels: int) -> tuple[nn.Module, int]:
    """A block, and the channels of its output."""
    out, kernel = int(rng.choice([3, 4, 8, 17])), int(rng.choice([1, 3, 5]))
    match rng.integers(20):
        case 0:
            return _conv_norm(rng, channels, channels, 3, groups=channels, stride=int(rng.integers(1, 3))), channels
        case 1:
            return Residual(_conv_norm(rng, channels, channels, 3), nn.relu), channels
        case 2 | 3:
            concatenate = bool(rng.random() < 0.5)
            branches = [_conv_norm(rng, channels, channels, k) for k in (1, 3)]
            return Branches(branches, concatenate), channels * (1 + concatenate)
        case 4:
            return Gate(channels), channels
        case 5:
            pools = nn.MaxPool2d(2, 1), nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(3, 2, 1), nn.AvgPool2d((1, 2))
            return pools[int(rng.integers(4))], channels
        case 6:
            return nn.Upsample(2, str(rng.choice(["nearest", "linear"]))), channels  # pyright: ignore
        case 7:
            return Padded(*map(int, rng.integers(0, 3, 2)), float(rng.choice([0, 0, -1.5]))), channels
        case 8:
            stride = int(rng.integers(1, 4))
            up = nn.ConvTranspose2d(channels, out, 3, stride, padding=1, output_padding=int(rng.integers(0, stride)))
            return ConvNorm(up, nn.Identity(), nn.silu), out
        case 9:
            return PreNorm(channels, nn.Conv2d(channels, out, 3, padding=1)), out
        case 10:
            return Tied(channels), channels
        case 11:
            return ComputedWeight(channels), channels
        case 12:
            return Pixelwise(channels, _norm(rng, channels)), channels
        case 13:
            return Attention(channels), channels
        case 14:
            return nn.Linear(channels, out, bias=bool(rng.random() < 0.6)), out
        case 15:
            return Gated(channels), channels
        case 16:
            return Dense(channels), channels + 8
        case _:
            return _conv_norm(rng, channels, out, kernel, dilation=int(rng.integers(1, 3))), out


def _mean_pixel(x: mx.array) -> mx.array:
    return x.mean((1, 2))


def random_network(rng: np.random.Generator, channels: int) -> nn.Module:
    """A convolution and up to four other blocks, evaluated; in inference or training mode."""
    blocks, width = [nn.Conv2d(channels, 4, 3)], 4
    for _ in range(int(rng.integers(1, 5))):
        block, width = _block(rng, width)
        blocks.append(block)
        if width > 20:
            blocks.append(nn.Conv2d(width, 6, 1))
            width = 6
    network: nn.Module = nn.Sequential(*blocks)
    if rng.random() < 0.35:
        network = Heads(network, width)
    elif rng.random() < 0.35:
        network = nn.Sequential(network, _mean_pixel, nn.Linear(width, 5))
    network.train(bool(rng.random() < 0.3))
    mx.eval(network.parameters())
    return network


def _some_conv(network: nn.Module, rng: np.random.Generator) -> nn.Module:
    convolutions = [m for _, m in network.named_modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]
    return convolutions[int(rng.integers(len(convolutions)))]


def _like(array: mx.array) -> mx.array:
    return (mx.random.normal(array.shape) * 0.2).astype(array.dtype)


def _replace(network: nn.Module, rng: np.random.Generator) -> None:
    conv = _some_conv(network, rng)
    conv.weight = _like(conv.weight)


def _replace_by_view(network: nn.Module, rng: np.random.Generator) -> None:
    conv = _some_conv(network, rng)
    conv.weight = mx.swapaxes(mx.contiguous(mx.swapaxes(_like(conv.weight), 1, 2)), 1, 2)


def _write_in_place(network: nn.Module, rng: np.random.Generator) -> None:
    conv = _some_conv(network, rng)
    conv.weight[0] = conv.weight[0] * 0.5 + 0.1


def _multiply_in_place(network: nn.Module, rng: np.random.Generator) -> None:
    _some_conv(network, rng).weight *= 0.7


def _take_out_and_put_back(network: nn.Module, rng: np.random.Generator) -> None:
    conv = _some_conv(network, rng)
    conv["weight"] = conv.pop("weight") + 0.05


def _drop_or_add_bias(network: nn.Module, rng: np.random.Generator) -> None:
    conv = _some_conv(network, rng)
    if "bias" in conv:
        del conv["bias"]
    else:
        conv.bias = mx.random.normal((conv.weight.shape[0],)).astype(conv.weight.dtype)


def _swap(network: nn.Module, rng: np.random.Generator) -> None:
    one, other = _some_conv(network, rng), _some_conv(network, rng)
    if one.weight.shape == other.weight.shape:
        one.weight, other.weight = other.weight, one.weight


def _change_statistics(network: nn.Module, rng: np.random.Generator) -> None:
    for norm in batch_norms(network):
        norm.running_mean, norm.running_var = _like(norm.running_mean), norm.running_var * 0.5 + 0.3


def _change_activation(network: nn.Module, rng: np.random.Generator) -> None:
    for _, module in network.named_modules():
        if isinstance(module, ConvNorm):
            module.act = ACTIVATIONS[int(rng.integers(len(ACTIVATIONS)))]


def _load(network: nn.Module, rng: np.random.Generator) -> None:
    network.load_weights([(n, a * 1.1 + 0.01) for n, a in tree_flatten(network.parameters())])


def _optimize(network: nn.Module, rng: np.random.Generator) -> None:
    optim.SGD(0.05).update(network, tree_map(_like, network.trainable_parameters()))


def _update(network: nn.Module, rng: np.random.Generator) -> None:
    network.update(tree_map(lambda a: a * 0.9 + 0.01, network.parameters()))


CHANGES: list[Callable[[nn.Module, np.random.Generator], object]] = [
    *(_replace, _replace_by_view, _write_in_place, _multiply_in_place, _take_out_and_put_back, _drop_or_add_bias),
    *(_swap, _change_statistics, _change_activation, _load, _optimize, _update),
    lambda network, rng: network.train(bool(rng.random() < 0.5)),
    lambda network, rng: network.apply(lambda a: a + 0.001),
    lambda network, rng: _some_conv(network, rng).freeze(),
]


def batch_norms(network: nn.Module) -> list[nn.BatchNorm]:
    return [m for _, m in network.named_modules() if isinstance(m, nn.BatchNorm)]
