"""What the tests here share: small models, and comparisons of a compiled call with plain MLX."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_map

import convjit


def image(*shape: int, seed: int = 1) -> mx.array:
    """Normal random numbers, (1, 6, 6, 3) unless told otherwise."""
    x = mx.random.normal(shape or (1, 6, 6, 3), key=mx.random.key(seed))
    mx.eval(x)
    return x


def fast_of(function: Any, **options: Any) -> Any:
    """`function` compiled; an error if any convolution of it stays plain MLX."""
    return convjit.compile(function, fallback="error", **options)


def num_kernels(fast: Any) -> int:
    """How many convolutions of the last capture run on kernels of ours."""
    return sum(row.kernel != "plain MLX" for row in convjit.inspect.explain(fast).rows)


def reasons(fast: Any) -> str:
    """Why the last capture runs as plain MLX, in part or altogether."""
    return "; ".join(convjit.inspect.explain(fast).reasons)


def to_numpy(array: mx.array) -> np.ndarray:
    return np.array(array.astype(mx.float32) if array.dtype == mx.bfloat16 else array)


def assert_close(actual: Any, expected: Any, rtol: float = 1e-5) -> None:
    """The same structure, shapes and dtypes; every element within `rtol` of the array's largest finite magnitude."""
    assert type(actual) is type(expected)
    if isinstance(expected, dict):
        assert list(actual) == list(expected)
        for key in expected:
            assert_close(actual[key], expected[key], rtol)
    elif isinstance(expected, (list, tuple)):
        assert len(actual) == len(expected)
        for a, b in zip(actual, expected, strict=True):
            assert_close(a, b, rtol)
    elif isinstance(expected, mx.array):
        assert actual.shape == expected.shape and actual.dtype == expected.dtype
        a, b = to_numpy(actual), to_numpy(expected)
        finite = np.abs(b[np.isfinite(b)]) if b.dtype.kind in "fc" else np.abs(b.astype(np.float64))
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * float(finite.max(initial=0.0)))
    else:
        assert actual == expected


def assert_different(a: mx.array, b: mx.array) -> None:
    """Far enough apart that a stale result cannot pass for a new one."""
    assert float(mx.abs(a - b).max()) > 1e-3


def assert_gradients(actual: Any, expected: Any) -> None:
    """The gradients are those of plain MLX, and plain MLX's are not zero everywhere."""
    leaves = [g for _, g in tree_flatten(expected)]
    assert leaves and all(float(mx.abs(g).max()) > 0 for g in leaves)
    assert_close(actual, expected)


class Net(nn.Module):
    """A convolution, something elementwise, and every kind of state that a module can hold."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.act = nn.relu
        self.layers = [nn.Conv2d(4, 4, 3, padding=1)]
        self.table = {"gain": mx.ones(4), "conv": nn.Conv2d(4, 4, 3, padding=1)}
        self.scale = 1.0
        mx.eval(self.parameters())

    def __call__(self, x: mx.array) -> mx.array:
        y = self.act(self.conv(x))
        for layer in self.layers:
            y = layer(y)
        return self.table["conv"](y * self.table["gain"]) * self.scale


class Tiny(nn.Module):
    """Convolutions with and without BatchNorm, dropout, a linear head."""

    def __init__(self):
        super().__init__()
        self.layers = [nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm(4), nn.Conv2d(4, 6, 3, stride=2)]
        self.dropout, self.head = nn.Dropout(0.4), nn.Linear(6, 3)
        mx.eval(self.parameters())

    def __call__(self, x):
        conv, norm, down = self.layers
        return self.head(self.dropout(nn.relu(down(nn.relu(norm(conv(x)))))).mean((1, 2)))


class ConvNorm(nn.Module):
    """Conv, BatchNorm, ReLU."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1, bias=False)  # BatchNorm makes a bias's gradient rounding errors
        self.norm = nn.BatchNorm(4)
        mx.eval(self.parameters())

    def __call__(self, x: mx.array) -> mx.array:
        return nn.relu(self.norm(self.conv(x)))


@dataclass
class Holder:
    """A plain object."""

    conv: nn.Module


class Outer:
    """A plain object that holds another one."""

    def __init__(self, conv: nn.Module):
        self.inner = Holder(conv)

    def run(self, x: mx.array) -> mx.array:
        return nn.relu(self.inner.conv(x))


class CallableHolder:
    """A plain object that is called."""

    def __init__(self, conv: nn.Module):
        self.conv = conv

    def __call__(self, x: mx.array) -> mx.array:
        return nn.relu(self.conv(x))


def parameters(model: nn.Module) -> dict[str, mx.array]:
    return dict(tree_flatten(model.parameters()))


def twins(make: Any) -> tuple[Any, Any]:
    """Two models with equal weights and nothing in common."""
    first, second = make(), make()
    second.update(tree_map(mx.array, first.parameters()))
    mx.eval(first.parameters(), second.parameters())
    return first, second


def small_conv(seed: int = 3, in_channels: int = 3) -> nn.Conv2d:
    """The convolution that most of the tests use, so that they share its kernel."""
    conv = nn.Conv2d(in_channels, 4, 3, padding=1)
    conv.weight = image(4, 3, 3, in_channels, seed=seed) * 0.3
    conv.bias = image(4, seed=seed + 100)
    mx.eval(conv.parameters())
    return conv


def layers(fast, kernel=True):
    """What runs on kernels of ours, or what does not."""
    return [row.layer for row in convjit.inspect.explain(fast).rows if (row.kernel != "plain MLX") == kernel]
