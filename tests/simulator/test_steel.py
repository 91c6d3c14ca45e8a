"""A second opinion on the simulator: MLX's own convolution kernels, from the headers in its wheel, are right in it."""

from __future__ import annotations

import json
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
import reference

from benchmarks.problems import FILE, multiply_adds, problems, shrink
from benchmarks.steel.dispatch import CONV_2D, CONV_3D, GENERAL, Choice, choose
from benchmarks.steel.elementwise import bias_silu_residual
from benchmarks.steel.run import convolution, mlx_counters
from convjit import simulator
from convjit.geometry import Geometry, plain_window

TOLERANCE = {mx.float32: 1e-5, mx.float16: 2e-3, mx.bfloat16: 1e-2}


def same(x: tuple[int, ...], w: tuple[int, ...], **window: object) -> Geometry:
    """A convolution padded by half its kernel; `window` overrides what it says."""
    half = tuple(k // 2 for k in w[1:-1])
    plain = replace(plain_window(len(x) - 2), pad_lo=half, pad_hi=half)
    return Geometry.of_shapes(x, w, replace(plain, **window))


# The kernel with its loader, and a convolution for which MLX takes it.
LOADERS = {
    "one channel": ((CONV_2D, 1, False), same((1, 9, 11, 1), (48, 3, 3, 1))),
    "two channels": ((CONV_2D, 2, False), same((1, 9, 11, 2), (32, 3, 3, 2), strides=(2, 2))),
    "three channels": ((CONV_2D, 3, False), same((2, 12, 10, 3), (80, 5, 5, 3), strides=(2, 1))),
    "four channels": ((CONV_2D, 4, False), same((1, 9, 11, 4), (8, 3, 3, 4), kernel_dilation=(2, 1))),
    "small filter": ((CONV_2D, 0, True), same((2, 9, 7, 32), (80, 3, 3, 32), strides=(2, 1))),
    "small filter, flipped": ((CONV_2D, 0, True), same((1, 6, 9, 16), (8, 3, 2, 16), flip=True)),
    "large filter": ((CONV_2D, 0, False), same((1, 20, 6, 16), (32, 18, 1, 16))),
    "groups": ((CONV_2D, 0, True), same((1, 8, 9, 32), (64, 3, 3, 16), groups=2)),
    "depthwise": ((CONV_2D, 1, False), same((1, 8, 9, 6), (12, 3, 3, 1), groups=6)),
    "padded channels": ((CONV_2D, 0, True), same((1, 16, 17, 20), (32, 3, 3, 20))),
    "1D": ((CONV_2D, 0, True), same((2, 50, 32), (48, 7, 32), kernel_dilation=(3,), pad_hi=(11,))),
    "general": ((GENERAL, 0, False), same((1, 33, 35, 20), (36, 3, 3, 20), strides=(2, 2))),
    "general, transposed": (
        (GENERAL, 0, False),
        same((2, 5, 6, 32), (16, 4, 3, 32), input_dilation=(2, 3), flip=True, pad_hi=(2, 3)),
    ),
    "3D": ((CONV_3D, 0, True), same((2, 4, 6, 5, 16), (32, 3, 3, 3, 16), strides=(1, 2, 1))),
    "3D, large filter": ((CONV_3D, 0, False), same((2, 18, 4, 3, 16), (16, 17, 1, 2, 16))),
    "3D, padded channels": ((CONV_3D, 0, True), same((1, 3, 6, 5, 5), (22, 2, 3, 3, 5))),
}


def random(g: Geometry, dtype: mx.Dtype) -> tuple[mx.array, mx.array]:
    keys = mx.random.split(mx.random.key(0))
    shapes = g.in_shape, g.weight_shape
    x, w = (mx.random.normal(s, key=k).astype(dtype) for s, k in zip(shapes, keys, strict=True))
    return x, w


def to_float64(array: mx.array) -> np.ndarray:
    return np.array(array.astype(mx.float32)).astype(np.float64)


def check(g: Geometry, choice: Choice, dtype: mx.Dtype) -> None:
    x, w = random(g, dtype)
    y = to_float64(convolution(g, choice, x, w))
    expected = reference.convolution(g, to_float64(x), to_float64(w))
    bar = TOLERANCE[dtype] * np.abs(expected).max()
    assert np.abs(y - expected).max() <= bar
    v = g.window
    by_mlx = mx.conv_general(
        x,
        w,
        stride=v.strides,
        padding=(v.pad_lo, v.pad_hi),
        kernel_dilation=v.kernel_dilation,
        input_dilation=v.input_dilation,
        groups=v.groups,
        flip=v.flip,
    )
    assert np.abs(y - to_float64(by_mlx)).max() <= 2 * bar


@pytest.mark.parametrize("name", LOADERS)
def test_every_loader_is_right(name: str) -> None:
    (kernel, channels, small_filter), g = LOADERS[name]
    choice = choose(g)
    assert choice.instead is None
    assert (choice.kernel, choice.channels, choice.small_filter) == (kernel, channels, small_filter)
    check(g, choice, mx.float32)


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["three channels", "small filter", "general", "3D"])
def test_half_precision(name: str, dtype: mx.Dtype) -> None:
    _, g = LOADERS[name]
    check(g, choose(g), dtype)


def test_the_large_tile_and_reads_beyond_the_weight() -> None:
    g = same((1, 9, 9, 64), (80, 3, 3, 64))
    large = choose(replace(g, in_size=(128, 128)))
    assert (large.bm, large.bn) == (64, 64)
    check(g, large, mx.float32)


def test_what_mlx_runs_instead() -> None:
    instead = {p.name: choose(p.geometry).instead for p in problems()}
    assert instead["rn50_c2_3x3"] is None
    assert instead["sd_vae_512px"] == "winograd_conv_2d"
    assert instead["convnext_dw7"] == instead["mamba_causal_dw4"] == "depthwise_conv_2d"
    assert instead["replk_dw31"] is None, "MLX's depthwise kernel takes at most 7x7"
    assert instead["hifigan_T8"] == "unfold + GEMM"
    assert instead["x3d_dw3d"] == "nothing, but raises"


def test_counters_of_a_pointwise_convolution() -> None:
    """32 x 64 tiles: each input is read once a column of tiles, each weight once a row."""
    g = Geometry.of_shapes((1, 8, 16, 32), (128, 1, 1, 32), plain_window(2))
    found = mlx_counters(g, mx.float32)
    pixels, rows, columns = 8 * 16, 4, 2
    assert (found.choice.bm, found.choice.bn) == (32, 64)
    assert found.conv.device_bytes_read == 4 * (columns * pixels * 32 + rows * 128 * 32)
    assert found.conv.device_bytes_written == 4 * pixels * 128
    assert found.conv.mma_operations == pixels * 128 * 32 // 8**3
    assert found.elementwise.device_bytes_read == 3 * 4 * pixels * 128
    assert found.elementwise.device_bytes_written == 4 * pixels * 128
    assert found.exact and found.copied_bytes == 0


def test_copies_are_counted() -> None:
    g = same((1, 16, 17, 20), (32, 3, 3, 20))
    before, after = (2 * (16 * 17 * c + 32 * 9 * c) for c in (20, 32))
    assert mlx_counters(g, mx.float16).copied_bytes == 2 * before + after


def test_the_elementwise_pass() -> None:
    y, bias, residual = (mx.random.normal(s, key=mx.random.key(1)) for s in ((2, 3, 5, 16), (12,), (2, 3, 5, 12)))
    (result,) = simulator.execute(*bias_silu_residual(y, bias, residual)).outputs
    z = y[..., :12] + bias
    assert mx.allclose(result, z * mx.sigmoid(z) + residual, rtol=1e-5, atol=1e-6)


def test_problems_are_shrunk_within_their_class() -> None:
    for problem in problems():
        full, small = problem.geometry, shrink(problem.geometry)
        assert multiply_adds(small) <= 60_000_000
        assert small.kernel == full.kernel
        assert small.window == replace(full.window, groups=small.window.groups)
        assert (small.window.groups > 1) == (full.window.groups > 1)
        assert choose(small).kernel == choose(full).kernel
        for few, many in ((small.in_channels, full.in_channels), (small.out_channels, full.out_channels)):
            assert few // small.window.groups % 16 == many // full.window.groups % 16


def test_problems_are_what_the_file_says() -> None:

    records = json.loads(FILE.read_text())
    assert len(records) == 58
    for problem, record in zip(problems(), records, strict=True):
        assert problem.geometry.out_shape == tuple(record["y"])
        assert problem.geometry.flops / 1e9 == pytest.approx(record["gflop"], rel=1e-3, abs=1e-4)
