"""Numbers that are equal in plain MLX are equal in kernels, though these round some of them elsewhere or not at all."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

import convjit

DTYPES = pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16], ids=str)


def normalised(x, w, gamma, beta):
    """Scaled by `gamma`, and with `beta` added: what compares the second may read it or make it of the first."""
    y = mx.conv2d(x, w)
    scaled = (y - mx.mean(y, axis=(0, 1, 2))) * gamma
    return scaled, scaled + beta


def largest(y):
    return mx.max(y, axis=(1, 2), keepdims=True)


def equal(*arrays):
    scaled, y = normalised(*arrays)
    return mx.where(y == largest(y), mx.abs(scaled) + 1, 0)


def not_less(*arrays):
    scaled, y = normalised(*arrays)
    return mx.where(y >= largest(y), mx.abs(scaled) + 1, 0)


def without_difference(*arrays):
    scaled, y = normalised(*arrays)
    return mx.where(y - largest(y) >= 0, mx.abs(scaled) + 1, 0)


def of_sign_zero(*arrays):
    scaled, y = normalised(*arrays)
    return (1 + mx.sign(y - largest(y))) * (mx.abs(scaled) + 1)


def by_negatives(*arrays):
    scaled, y = normalised(*arrays)
    return mx.where(-y == -largest(y), mx.abs(scaled) + 1, 0)


def of_a_convolution(x, w, gamma, beta):
    y = mx.conv2d(x, w) + beta
    return mx.where(mx.conv2d(x, w) + beta == largest(y), 1.0, 0.0)


def drawn(dtype):
    keys = mx.random.split(mx.random.key(3), 4)
    shapes = ((2, 16, 16, 16), (16, 1, 1, 16), (16,), (16,))
    return [mx.random.normal(s, key=k).astype(dtype) for s, k in zip(shapes, keys, strict=True)]


@DTYPES
@pytest.mark.parametrize(
    "function", [equal, not_less, without_difference, of_sign_zero, by_negatives, of_a_convolution]
)
def test_each_channel_of_an_image_has_its_largest_number(function, dtype):
    """4,096 pixels of 16 channels and more: what `fuse-elementwise` would otherwise compute twice."""
    assert drawn(dtype)[0].size >= 4096
    found = convjit.compile(function, fallback="error")(*drawn(dtype))
    assert mx.any(found != 0, axis=(1, 2)).all()


@DTYPES
def test_what_an_earlier_call_returned(dtype):
    """As a loop does that runs until nothing changes."""
    x, w, _, beta = drawn(dtype)

    def function(x, before):
        y = mx.conv2d(x, w) + beta
        return y, mx.where(y == before, 1.0, 0.0), mx.where(mx.conv2d(x, w) + beta != before, 1.0, 0.0)

    fast = convjit.compile(function, fallback="error")
    y, _, _ = fast(x, mx.zeros(x.shape, dtype))
    _, same, other = fast(x, y)
    assert same.all() and not other.any()


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(16, 16, 1)
        self.norm = nn.BatchNorm(16)


@DTYPES
@pytest.mark.parametrize("axes", [(1, 2), -1], ids=["pixels", "channels"])
def test_the_gradient_of_a_maximum(axes, dtype):
    """It goes to the numbers that are equal to the maximum."""
    block = Block()
    block.set_dtype(dtype)
    block.train()
    x = drawn(dtype)[0]

    def step(x):
        def loss(x):
            y = mx.max(nn.relu(block.norm(block.conv(x))), axis=axes)
            return mx.sum((y * mx.cos(mx.arange(y.size).reshape(y.shape))).astype(mx.float32))

        return nn.value_and_grad(block, loss)(x)[1]["conv"]["weight"]

    actual, expected = (
        np.array(f(x).astype(mx.float32)).ravel() for f in (convjit.compile(step, fallback="error"), step)
    )
    assert np.linalg.norm(actual - expected) < (1e-4 if dtype == mx.float32 else 0.2) * np.linalg.norm(expected)
