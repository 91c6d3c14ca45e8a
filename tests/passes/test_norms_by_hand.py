"""Norms as users write them: kernels, whatever their axes; and what is almost one stays what it is."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from test_layouts import TO_NCHW, TO_NHWC
from test_norms import TOLERANCE, assert_close

import convjit


def by_mean_and_square(x: mx.array, axes: int | tuple[int, ...]) -> mx.array:
    mean = x.mean(axes, keepdims=True)
    return (x - mean) / mx.sqrt(((x - mean) ** 2).mean(axes, keepdims=True) + 1e-3)


def by_variance(x: mx.array, axes: tuple[int, ...]) -> mx.array:
    return mx.rsqrt(1e-3 + mx.var(x, axes, keepdims=True)) * (x - x.mean(axes, keepdims=True))


def by_sums(x: mx.array) -> mx.array:
    mean = x.sum(-1, keepdims=True) / x.shape[-1]
    difference = x - mean
    return difference * mx.rsqrt((difference * difference).sum(-1, keepdims=True) / x.shape[-1] + 1e-3)


def by_unbiased_variance(x: mx.array) -> mx.array:
    difference = x - x.mean(-1, keepdims=True)
    return difference / mx.sqrt((difference**2).sum(-1, keepdims=True) / (x.shape[-1] - 1) + 1e-3)


def in_groups(x: mx.array, groups: int) -> mx.array:
    parts = x.reshape(*x.shape[:-1], groups, -1)
    return by_variance(parts, (*range(1, x.ndim - 1), x.ndim)).reshape(x.shape)


BY_HAND: dict[str, tuple[Callable[[mx.array], mx.array], str]] = {
    "of channels": (lambda x: by_mean_and_square(x, -1), "<[70, 1, 1, 24]>"),
    "of channels, sums": (by_sums, "<[70, 1, 1, 24]>"),
    "RMS": (lambda x: x * mx.rsqrt(mx.mean(x * x, -1, keepdims=True) + 1e-3), "<[70, 1, 1, 24]>"),
    "RMS, divided": (lambda x: x / (x.square().mean(-1, keepdims=True) + 1e-3).sqrt(), "<[70, 1, 1, 24]>"),
    "L2": (lambda x: x * mx.rsqrt(x.square().sum(-1, keepdims=True) + 1e-3), "<[70, 1, 1, 24]>"),
    "of channels, unbiased": (by_unbiased_variance, "<[70, 1, 1, 24]>"),
    "of pixels": (lambda x: by_variance(x, (1, 2)), "<[2, 35, 24, 1]>"),
    "of images": (lambda x: by_variance(x, (1, 2, 3)), "<[2, 35, 1, 24]>"),
    "of the batch": (lambda x: by_mean_and_square(x, (0, 1, 2)), "<[1, 70, 24, 1]>"),
    "of groups": (lambda x: in_groups(x, 3), "<[2, 35, 3, 8]>"),
    "of interleaved groups": (
        lambda x: by_variance(x.reshape(2, -1, 8, 3), (1, 2)).reshape(x.shape),
        "<[2, 35, 3, 8]> interleaved",
    ),
    "of channels that come first": (
        lambda x: by_mean_and_square(x.transpose(TO_NCHW), 1).transpose(TO_NHWC),
        "<[70, 1, 1, 24]>",
    ),
    "of pixels, channels first": (
        lambda x: by_mean_and_square(x.transpose(TO_NCHW), (2, 3)).transpose(TO_NHWC),
        "<[2, 35, 24, 1]>",
    ),
}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", BY_HAND)
def test_norms_that_users_write(name: str, dtype: mx.Dtype):
    """In half types MLX rounds what it sums; we do not."""
    norm, view = BY_HAND[name]
    arrays = [mx.random.normal(s, key=mx.random.key(3)).astype(dtype) * 3 + 2 for s in ((2, 7, 5, 24), (2, 1, 1, 24))]

    def function(x: mx.array, w: mx.array) -> list[mx.array]:
        return [nn.silu(norm(x)), mx.conv_general(x, w)]

    fast = convjit.compile(function, fallback="error")
    want = function(*(array.astype(mx.float32) for array in arrays))[0]
    assert_close(fast(*arrays)[0], want.astype(dtype))
    ir = convjit.inspect.ir(fast).partition("@forward")[2]
    assert ir.count("conv.norm") == 1 and f"as {view}" in ir and "mlx.primitive" not in ir


ALMOST: dict[str, Callable[[mx.array], mx.array]] = {
    "another mean": lambda x: (x - x.mean(1, keepdims=True)) * mx.rsqrt(x.var(-1, keepdims=True) + 1),
    "cubes": lambda x: x / mx.sqrt((x**3).mean(-1, keepdims=True) + 100),
    "a sum subtracted": lambda x: (x - x.sum(-1, keepdims=True)) * mx.rsqrt(x.var(-1, keepdims=True) + 1),
    "a negative share": lambda x: x * mx.rsqrt(100 - 0.01 * x.square().sum(-1, keepdims=True)),
    "every 7th pixel": lambda x: by_variance(x.reshape(2, 5, 7, 24), (1,)).reshape(x.shape),
}


@pytest.mark.parametrize("name", ALMOST)
def test_what_is_almost_a_norm_stays(name: str):
    arrays = [mx.random.normal(s, key=mx.random.key(3)) * 3 + 2 for s in ((2, 7, 5, 24), (2, 1, 1, 24))]

    def function(x: mx.array, w: mx.array) -> list[mx.array]:
        return [ALMOST[name](x), mx.conv_general(x, w)]

    fast = convjit.compile(function)
    np.testing.assert_allclose(fast(*arrays)[0], function(*arrays)[0], rtol=1e-5, atol=1e-5)
    assert "conv.norm" not in convjit.inspect.ir(fast)


def norm_and_weight(seed: int = 3) -> tuple[mx.array, mx.array]:
    key = mx.random.key(seed)
    return 1000 + 0.05 * mx.random.normal((2, 7, 5, 24), key=key), mx.random.normal((2, 1, 1, 24), key=key)


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16], ids=str)
def test_a_cast_that_rounds_is_kept(dtype: mx.Dtype):
    """All of 1000 +- 0.05 is one number then, and 100 times as much is infinite in float16."""

    def norms(x: mx.array, then: mx.Dtype) -> list[mx.array]:
        x, large = x.astype(dtype).astype(then), (100 * x).astype(dtype).astype(then)
        return [by_variance(x, (-1,)), large / mx.sqrt(large.square().mean(-1, keepdims=True) + 1)]

    fast = convjit.compile(lambda x, w: [*norms(x, dtype), mx.conv_general(x, w)], fallback="error")
    x, w = norm_and_weight()
    for got, want in zip(fast(x, w)[:2], norms(x, mx.float32), strict=True):
        np.testing.assert_allclose(got.astype(mx.float32), want, rtol=1e-2, atol=1e-2)
    assert convjit.inspect.ir(fast).partition("@forward")[2].count("conv.norm") == 2


def test_a_norm_is_rounded_before_it_is_cast():
    """0.99988 is 1 in float16."""
    x = mx.array(np.random.default_rng(3).permutation([-2.0, 2.0] * 30)[None] * [[1], [-1]])

    def function(x: mx.array, w: mx.array) -> list[mx.array]:
        y = by_variance(x.astype(mx.float16).transpose(TO_NCHW), (1, 2, 3))
        return [y.astype(mx.int32), mx.conv_general(x, w)]

    arrays = [x.reshape(2, 5, 3, 4), mx.ones((2, 1, 1, 4))]
    fast = convjit.compile(function, fallback="error")
    np.testing.assert_array_equal(fast(*arrays)[0], function(*arrays)[0])
    assert "conv.norm" in convjit.inspect.ir(fast)


IN_A_ROW: dict[str, Callable[[mx.array], mx.array]] = {
    "by hand": lambda x: by_mean_and_square(by_variance(x, (1, 2)), -1),
    "InstanceNorm": lambda x: nn.InstanceNorm(24)(nn.InstanceNorm(24)(x)),
    "GroupNorm": lambda x: nn.GroupNorm(4, 24, affine=False)(
        nn.GroupNorm(3, 24, affine=False, pytorch_compatible=True)(x)
    ),
}


@pytest.mark.parametrize("name", IN_A_ROW)
def test_norms_in_a_row_are_two_kernels(name: str):
    x, w = norm_and_weight()

    def function(x: mx.array, w: mx.array) -> list[mx.array]:
        return [IN_A_ROW[name](x - 1000), mx.conv_general(x, w)]

    fast = convjit.compile(function, fallback="error")
    np.testing.assert_allclose(fast(x, w)[0], function(x, w)[0], rtol=1e-3, atol=1e-3)
    ir = convjit.inspect.ir(fast).partition("@forward")[2]
    assert ir.count("conv.norm") == 2 and "mlx.primitive" not in ir
