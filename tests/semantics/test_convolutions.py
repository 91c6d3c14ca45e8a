"""Rule 17: convolutions of every form through the whole pipeline, against plain MLX and a float64 definition."""

from itertools import product

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from checks import assert_close, image, num_kernels

import convjit


def definition(x, w, stride, pad_lo, pad_hi, dilation, input_dilation, groups, flip):
    """y[o] = sum over k of x'[o * stride + k * dilation] w[k] in float64, x' spread, then padded, then cropped."""
    x, w = np.asarray(x, np.float64), np.asarray(w, np.float64)
    rank = x.ndim - 2
    if flip:
        w = np.flip(w, tuple(range(1, 1 + rank)))
    extents = [(n - 1) * d + 1 for n, d in zip(x.shape[1:-1], input_dilation, strict=True)]
    spread = np.zeros((x.shape[0], *extents, x.shape[-1]))
    spread[(slice(None), *(slice(None, None, d) for d in input_dilation))] = x
    for axis in range(rank):
        widths = [(0, 0)] * x.ndim
        widths[1 + axis] = (max(pad_lo[axis], 0), max(pad_hi[axis], 0))
        spread = np.pad(spread, widths)
        low, high = max(-pad_lo[axis], 0), max(-pad_hi[axis], 0)
        spread = np.take(spread, range(low, spread.shape[1 + axis] - high), axis=1 + axis)
    extents = [
        (n - d * (k - 1) - 1) // s + 1
        for n, k, d, s in zip(spread.shape[1:-1], w.shape[1:-1], dilation, stride, strict=True)
    ]
    inputs, outputs = w.shape[-1], w.shape[0] // groups
    y = np.zeros((x.shape[0], *extents, w.shape[0]))
    for taps in product(*map(range, w.shape[1:-1])):
        places = zip(taps, dilation, extents, stride, strict=True)
        window = tuple(slice(t * d, t * d + (n - 1) * s + 1, s) for t, d, n, s in places)
        for g in range(groups):
            part = spread[(slice(None), *window, slice(g * inputs, (g + 1) * inputs))]
            y[..., g * outputs : (g + 1) * outputs] += part @ w[(slice(g * outputs, (g + 1) * outputs), *taps)].T
    return y


# (input shape, weight shape, arguments of mx.conv_general)
GENERAL = {
    "1d": ((2, 11, 3), (4, 3, 3), {}),
    "1d, asymmetric": ((2, 11, 3), (4, 4, 3), {"padding": ([3], [0])}),
    "1d, strided and dilated": ((1, 23, 2), (5, 3, 2), {"stride": 2, "kernel_dilation": 3, "padding": 2}),
    "1d, depthwise": ((1, 13, 6), (6, 5, 1), {"groups": 6, "padding": 2}),
    "2d": ((2, 7, 9, 3), (4, 3, 3, 3), {"padding": 1}),
    "2d, even kernel": ((1, 7, 8, 3), (5, 2, 4, 3), {"padding": ([1, 2], [0, 1])}),
    "2d, stride beyond the kernel": ((1, 11, 12, 3), (2, 2, 1, 3), {"stride": (4, 3)}),
    "2d, dilated": ((1, 12, 11, 2), (3, 3, 3, 2), {"kernel_dilation": (2, 3), "padding": (2, 3)}),
    "2d, grouped": ((1, 7, 6, 8), (12, 3, 3, 2), {"groups": 4, "padding": 1}),
    "2d, depthwise with a multiplier": ((1, 7, 6, 4), (12, 3, 3, 1), {"groups": 4, "stride": 2, "padding": 1}),
    "2d, pointwise": ((1, 5, 6, 17), (19, 1, 1, 17), {}),
    "2d, more padding than input": ((1, 2, 2, 3), (4, 3, 3, 3), {"padding": 4}),
    "2d, one pixel": ((3, 1, 1, 5), (4, 1, 1, 5), {}),
    "2d, one output": ((1, 5, 5, 3), (4, 5, 5, 3), {}),
    "2d, flipped": ((1, 6, 7, 3), (4, 3, 2, 3), {"flip": True, "padding": 1}),
    "2d, negative padding": ((1, 9, 9, 3), (4, 3, 3, 3), {"padding": ([-1, 0], [0, -2])}),
    "2d, spread input": ((1, 5, 4, 3), (4, 3, 3, 3), {"input_dilation": (2, 3), "padding": ([2, 2], [2, 3])}),
    "2d, spread and strided": ((1, 5, 4, 3), (4, 3, 3, 3), {"input_dilation": 3, "stride": 2, "padding": 1}),
    "3d": ((1, 4, 5, 6, 2), (3, 2, 3, 3, 2), {"padding": (1, 0, 1)}),
    "3d, strided": ((2, 5, 5, 5, 3), (4, 3, 1, 2, 3), {"stride": (2, 1, 2), "kernel_dilation": (1, 1, 2)}),
    "tall": ((1, 40, 1, 3), (4, 7, 1, 3), {"stride": (3, 1)}),
    "many channels": ((1, 4, 4, 70), (66, 3, 3, 70), {"padding": 1}),
}


def as_tuples(rank, arguments):
    def ints(name, default):
        value = arguments.get(name, default)
        return (value,) * rank if isinstance(value, int) else tuple(value)

    padding = arguments.get("padding", 0)
    lo, hi = padding if isinstance(padding, tuple) and isinstance(padding[0], list) else (ints("padding", 0),) * 2
    return {
        "stride": ints("stride", 1),
        "pad_lo": tuple(lo),
        "pad_hi": tuple(hi),
        "dilation": ints("kernel_dilation", 1),
        "input_dilation": ints("input_dilation", 1),
        "groups": arguments.get("groups", 1),
        "flip": arguments.get("flip", False),
    }


@pytest.mark.parametrize("name", GENERAL)
@pytest.mark.parametrize("where", ["parameter", "argument"])
def test_general(name, where):
    shape, kernel, arguments = GENERAL[name]
    x, w, b = image(*shape), image(*kernel, seed=2), image(kernel[0], seed=3)
    reference = definition(x, w, **as_tuples(len(shape) - 2, arguments)) + np.array(b, np.float64)
    reference = np.maximum(reference, 0)

    def plain(x, w):
        return nn.relu(mx.conv_general(x, w, **arguments) + b)

    fast = convjit.compile(plain if where == "argument" else lambda x: plain(x, w), fallback="warn")
    actual = fast(x, w) if where == "argument" else fast(x)
    assert actual.shape == reference.shape
    np.testing.assert_allclose(np.array(actual), reference, rtol=1e-5, atol=1e-5 * np.abs(reference).max())
    assert_close(actual, plain(x, w))
    assert num_kernels(fast) == 1, convjit.inspect.explain(fast)


LAYERS = {
    "Conv1d": (lambda: nn.Conv1d(3, 5, 4, stride=2, padding=1, dilation=2), (2, 17, 3)),
    "Conv1d grouped": (lambda: nn.Conv1d(6, 4, 3, groups=2, bias=False), (1, 9, 6)),
    "Conv2d": (lambda: nn.Conv2d(3, 5, (3, 2), stride=(1, 2), padding=(0, 1)), (2, 6, 7, 3)),
    "Conv2d depthwise": (lambda: nn.Conv2d(5, 5, 3, groups=5, padding=1), (1, 6, 7, 5)),
    "Conv3d": (lambda: nn.Conv3d(2, 3, 2, padding=1), (1, 3, 4, 5, 2)),
    "ConvTranspose1d": (lambda: nn.ConvTranspose1d(3, 4, 4, stride=2, padding=1, output_padding=1), (2, 6, 3)),
    "ConvTranspose1d, stride beyond kernel": (lambda: nn.ConvTranspose1d(3, 4, 2, stride=3), (1, 5, 3)),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(3, 4, 3, stride=2, padding=1, output_padding=1), (1, 4, 5, 3)),
    "ConvTranspose2d dilated": (lambda: nn.ConvTranspose2d(3, 4, 3, stride=2, dilation=2), (1, 4, 5, 3)),
    "ConvTranspose2d, stride 1": (lambda: nn.ConvTranspose2d(3, 4, 3, padding=2), (1, 4, 5, 3)),
    "ConvTranspose3d": (lambda: nn.ConvTranspose3d(2, 3, 2, stride=2), (1, 3, 2, 3, 2)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name):
    make, shape = LAYERS[name]
    net, x = nn.Sequential(make(), nn.SiLU()), image(*shape)
    fast = convjit.compile(net)
    assert_close(fast(x), net(x))
    net.layers[0].weight = net.layers[0].weight * 2
    assert_close(fast(x), net(x))
    gradient = mx.grad(lambda x: fast(x).sum())(x)
    assert_close(gradient, mx.grad(lambda x: net(x).sum())(x))


def test_transposed_with_much_padding():
    """MLX crops its undilated input (rule 17): what it computes, or an error, but nothing in between."""
    x, w = image(1, 7, 3), image(4, 2, 3, seed=2)

    def plain(x, w):
        return mx.conv_transpose1d(x, w, stride=2, padding=2)

    fast = convjit.compile(plain, fallback="quiet")
    try:
        actual = fast(x, w)
    except ValueError as e:
        assert "padding" in str(e)
        return
    assert_close(actual, plain(x, w))


@pytest.mark.parametrize("seed", range(20))
def test_random_forms(seed):
    rng = np.random.default_rng(seed)
    rank = int(rng.integers(1, 4))
    groups = int(rng.choice([1, 1, 2, 3])) if rank < 3 else 1
    size = tuple(map(int, rng.integers(3, 9, rank)))
    kernel = tuple(map(int, rng.integers(1, 4, rank)))
    inputs, outputs = int(rng.integers(1, 6)), int(rng.integers(1, 7))
    arguments = {
        "stride": tuple(map(int, rng.integers(1, 4, rank))),
        "kernel_dilation": tuple(map(int, rng.integers(1, 3, rank))),
        "input_dilation": tuple(map(int, rng.choice([1, 1, 1, 2], rank))),
        "padding": ([*map(int, rng.integers(2, 4, rank))], [*map(int, rng.integers(2, 4, rank))]),
        "groups": groups,
        "flip": bool(rng.integers(2)),
    }
    x = image(int(rng.integers(1, 3)), *size, inputs * groups, seed=seed)
    w = image(outputs * groups, *kernel, inputs, seed=seed + 100)
    fast = convjit.compile(lambda x, w: mx.conv_general(x, w, **arguments), fallback="quiet")
    reference = definition(x, w, **as_tuples(rank, arguments))
    actual = fast(x, w)
    assert actual.shape == reference.shape
    np.testing.assert_allclose(np.array(actual), reference, rtol=1e-5, atol=1e-5 * np.abs(reference).max())
