"""Rules 9, 11, 12, 19 and 21: numbers through the whole pipeline, where NaN, infinity and signed zero matter."""

import ctypes
import math
import platform
import sys

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from checks import assert_close, fast_of, image, num_kernels, reasons, small_conv, to_numpy

import convjit

TINY = 1e-40
SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 3.0, -3.0, 6.0, 2.5, -2.5, 1e-3, -1e-3, 10.0, -10.0, 87.0, -87.0]
SPECIAL += [104.0, -104.0, 1e4, -1e4, 1e20, -1e20, 3e38, -3e38, math.inf, -math.inf, math.nan, TINY, -TINY, 20.0, -20.0]


def special() -> mx.array:
    """(1, 8, 4, 1): one channel, so that a pointwise convolution with weight 1 hands each value on as it is."""
    return mx.array(SPECIAL).reshape(1, 8, 4, 1)


def pointwise(x: mx.array) -> mx.array:
    return mx.conv2d(x, mx.ones((4, 1, 1, 1)))


def leftovers(fast) -> list[str]:
    """The MLX primitives that `@forward` runs besides kernels."""
    text = convjit.inspect.ir(fast, "scheduled")
    forward = text[text.index("@forward") :]
    return [line.split('"')[1] for line in forward.splitlines() if "mlx.primitive" in line]


def assert_same_numbers(actual: mx.array, expected: mx.array, rtol: float = 1e-5, atol: float = 2e-6):
    """NaN, infinities and the signs of zeros where plain MLX has them; all others within tolerance."""
    a, b = to_numpy(actual), to_numpy(expected)
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(np.isnan(a), np.isnan(b))
    np.testing.assert_array_equal(np.isinf(a), np.isinf(b))
    np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)
    zeros = (b == 0) & (a == 0)
    np.testing.assert_array_equal(np.signbit(a[zeros]), np.signbit(b[zeros]))


ACTIVATIONS = {
    "relu": nn.relu,
    "relu2": nn.relu2,
    "relu6": nn.relu6,
    "leaky_relu": nn.leaky_relu,
    "prelu": lambda y: nn.prelu(y, mx.array([0.3])),
    "elu": nn.elu,
    "celu": nn.celu,
    "selu": nn.selu,
    "sigmoid": nn.sigmoid,
    "silu": nn.silu,
    "tanh": nn.tanh,
    "hard_tanh": nn.hard_tanh,
    "hardswish": nn.hardswish,
    "hard_shrink": nn.hard_shrink,
    "softshrink": nn.softshrink,
    "softplus": nn.softplus,
    "softsign": nn.softsign,
    "log_sigmoid": nn.log_sigmoid,
    "mish": nn.mish,
    "gelu": nn.gelu,
    "gelu_approx": nn.gelu_approx,
    "gelu_fast_approx": nn.gelu_fast_approx,
    "step": nn.step,
    "clip": lambda y: mx.clip(y, -1.0, 2.0),
    "clip to zero": lambda y: mx.clip(y, 0.0, None),
    "sign": mx.sign,
    "abs": mx.abs,
    "negative": mx.negative,
    "maximum, zero first": lambda y: mx.maximum(0.0, y),
    "maximum, zero second": lambda y: mx.maximum(y, 0.0),
    "maximum, minus zero": lambda y: mx.maximum(y, -0.0),
    "minimum": lambda y: mx.minimum(y, 0.0),
    "minimum, zero first": lambda y: mx.minimum(0.0, y),
    "where": lambda y: mx.where(y > 0, y, -2.0 * y),
    "nan_to_num": lambda y: mx.where(mx.isnan(y), 0.0, y),
    "square": mx.square,
    "exp": mx.exp,
    "sqrt": mx.sqrt,
    "rsqrt": mx.rsqrt,
    "log1p": mx.log1p,
    "reciprocal": lambda y: 1.0 / y,
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_at_special_values(name):
    x = special()

    def plain(x):
        return ACTIVATIONS[name](pointwise(x))

    fast = fast_of(plain)
    assert_same_numbers(fast(x), plain(x))
    assert num_kernels(fast) == 1


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "silu", "gelu", "gelu_approx", "gelu_fast_approx", "hardswish"])
def test_common_activations_are_fused(name):
    fast = fast_of(lambda x: ACTIVATIONS[name](pointwise(x)))
    fast(special())
    assert leftovers(fast) == []


@pytest.mark.parametrize("name", ["softmax", "glu", "log_softmax"])
def test_what_is_not_elementwise(name):
    function, x, conv = getattr(nn, name), image(), small_conv()
    fast = fast_of(lambda x: function(conv(x)))
    assert_close(fast(x), function(conv(x)))


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
@pytest.mark.parametrize("name", ["relu", "silu", "gelu", "hardswish", "sign", "clip"])
def test_activations_in_half_precision(name, dtype):
    """Non-finite values of plain MLX's half intermediates are no failure (rule 15); zeros' signs and NaN are kept."""
    values = [v for v in SPECIAL if not 100 < abs(v) < math.inf][:24]
    x = mx.array(values).reshape(1, 6, 4, 1).astype(dtype)
    weight = mx.ones((4, 1, 1, 1), dtype)

    def plain(x):
        return ACTIVATIONS[name](mx.conv2d(x, weight))

    fast = fast_of(plain)
    wide = to_numpy(ACTIVATIONS[name](pointwise(x.astype(mx.float32))).astype(dtype)).astype(np.float64)
    actual = to_numpy(fast(x)).astype(np.float64)
    assert fast(x).dtype == dtype
    np.testing.assert_array_equal(np.isnan(actual), np.isnan(wide))
    eps = 2.0**-10 if dtype == mx.float16 else 2.0**-7
    np.testing.assert_allclose(actual, wide, rtol=2 * eps, atol=eps / 4)


def test_nan_and_infinity_stay_where_they_are():
    """A direct convolution spreads them no further than the window does."""
    conv = small_conv()
    x = np.array(image(1, 9, 9, 3))
    x[0, 2, 2, 0], x[0, 6, 6, 1], x[0, 4, 1, 2] = np.nan, np.inf, 1e30
    x = mx.array(x)
    for function in (conv, lambda x: nn.relu(conv(x)), lambda x: nn.silu(conv(x))):
        actual, expected = to_numpy(fast_of(function)(x)), to_numpy(function(x))
        np.testing.assert_array_equal(np.isnan(actual), np.isnan(expected))
        np.testing.assert_array_equal(np.isinf(actual), np.isinf(expected))
        ordinary = np.isfinite(expected) & (np.abs(expected) < 1e20)
        np.testing.assert_allclose(actual[ordinary], expected[ordinary], rtol=1e-4, atol=1e-5)


def mxcsr() -> int:
    """The control bits of the SSE unit: rounding, masks, flush-to-zero and denormals-are-zero."""
    environment = ctypes.create_string_buffer(64)
    ctypes.CDLL(None).fegetenv(environment)
    return int.from_bytes(environment.raw[28:32], sys.byteorder) & 0xFFC0


def test_denormals_survive():
    conv, x = small_conv(), image()
    fast = fast_of(lambda x: nn.silu(conv(x)))
    on_x86 = platform.machine() == "x86_64" and sys.platform == "linux"
    before = mxcsr() if on_x86 else 0
    mx.eval(fast(x))
    assert not on_x86 or mxcsr() == before
    assert np.float32(TINY) * np.float32(1.0) > 0
    assert (np.full(64, TINY, np.float32) * np.float32(0.5)).min() > 0
    tiny = fast_of(pointwise)(mx.full((1, 8, 4, 1), TINY))
    assert to_numpy(tiny).min() > 0


# --- what is fused, and what must not be ---------------------------------------------------------------------


class SqueezeExcite(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.down, self.up = small_conv(), nn.Conv2d(4, 2, 1), nn.Conv2d(2, 4, 1)

    def __call__(self, x):
        y = nn.silu(self.conv(x))
        gate = y.mean(axis=(1, 2), keepdims=True)
        return y * mx.sigmoid(self.up(nn.relu(self.down(gate)))) + y


class BasicBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = small_conv(3, 4), small_conv(4, 4)
        self.norms = [nn.BatchNorm(4) for _ in range(2)]
        for n, norm in enumerate(self.norms):
            norm.running_mean, norm.running_var = image(4, seed=n), mx.abs(image(4, seed=n + 9)) + 0.1
        self.eval()

    def __call__(self, x):
        y = nn.relu(self.norms[0](self.a(x)))
        total = self.norms[1](self.b(y)) + x
        return total, nn.relu(total), nn.relu(total * 2 - 1) + y


MODELS = {
    "squeeze and excite": (SqueezeExcite, 3),
    "residual with several results": (BasicBlock, 4),
    "linear after": (lambda: nn.Sequential(small_conv(), nn.GELU(), nn.Linear(4, 5), nn.LayerNorm(5)), 3),
    "norms between": (lambda: nn.Sequential(small_conv(), nn.GroupNorm(2, 4), nn.SiLU(), small_conv(4, 4)), 3),
    "rms norm": (lambda: nn.Sequential(small_conv(), nn.RMSNorm(4), small_conv(4, 4)), 3),
    "instance norm": (lambda: nn.Sequential(small_conv(), nn.InstanceNorm(4, affine=True), nn.ReLU()), 3),
    "max pool": (lambda: nn.Sequential(small_conv(), nn.MaxPool2d(2, 2), small_conv(4, 4)), 3),
    "overlapping pools": (lambda: nn.Sequential(small_conv(), nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(3, 1, 1)), 3),
    "upsample": (lambda: nn.Sequential(small_conv(), nn.Upsample(2), small_conv(4, 4)), 3),
    "bilinear": (lambda: nn.Sequential(small_conv(), nn.Upsample(2, mode="linear")), 3),
}


@pytest.mark.parametrize("name", MODELS)
def test_models(name):
    make, channels = MODELS[name]
    net = make().eval()
    fast = fast_of(net)
    for x in (image(2, 8, 8, channels), image(1, 8, 8, channels, seed=4)):
        assert_close(fast(x), net(x), rtol=2e-5)
    assert num_kernels(fast) >= 1


FUNCTIONS = {
    "conv used twice": lambda x, c: (lambda y: nn.relu(y) + mx.exp(-y))(c(x)),
    "conv returned and activated": lambda x, c: (lambda y: (y, nn.relu(y), y.sum()))(c(x)),
    "one conv into another's epilogue": lambda x, c: nn.relu(c(x) * mx.sigmoid(c(x + 1))),
    "residual from before and after": lambda x, c: (lambda y: nn.relu(y + c(y[..., :3])) + y)(c(x)),
    "extra that depends on the result": lambda x, c: (lambda y: y / (1 + y.max()))(c(x)),
    "normalised by its own statistics": lambda x, c: (lambda y: (y - y.mean((1, 2), keepdims=True)) * 2)(c(x)),
    "broadcast to more": lambda x, c: c(x)[:, None] + mx.ones((1, 3, 1, 1, 4)),
    "broadcast to more batches": lambda x, c: c(x) + mx.ones((3, 1, 1, 4)),
    "channel vector": lambda x, c: c(x) * mx.array([1.0, -2.0, 0.0, 3.0]) - mx.array([1.0, 2.0, 3.0, 4.0]),
    "row and column vectors": lambda x, c: c(x) * mx.arange(6.0).reshape(6, 1, 1) + mx.arange(6.0).reshape(1, 6, 1),
    "scalar on the left": lambda x, c: 1.0 - 2.0 / (1.0 + mx.exp(c(x))),
    "integers": lambda x, c: (c(x) * 2).astype(mx.int32) + 1,
    "there and back": lambda x, c: mx.sin(c(x).astype(mx.float16).astype(mx.float32)),
    "comparison": lambda x, c: c(x) > 0,
    "mask": lambda x, c: mx.where(x[..., :1] > 0, c(x), -1.0),
    "argmax": lambda x, c: mx.argmax(c(x), axis=-1),
    "transposed": lambda x, c: nn.relu(c(x).transpose(0, 3, 1, 2)) + mx.ones((4, 1, 1)),
    "sliced": lambda x, c: nn.relu(c(x)[:, 1:, ::2]),
    "reshaped": lambda x, c: nn.silu(c(x).reshape(1, 36, 4)) * 2,
    "concatenated": lambda x, c: nn.relu(mx.concatenate([c(x), x], axis=-1)),
    "split": lambda x, c: (lambda a, b: a * mx.sigmoid(b))(*mx.split(c(x), 2, axis=-1)),
    "cumulative": lambda x, c: mx.cumsum(nn.relu(c(x)), axis=1),
    "power": lambda x, c: mx.power(mx.abs(c(x)), 1.7) + c(x) ** 3,
    "remainder": lambda x, c: c(x) % 0.7,
    "floor": lambda x, c: mx.floor(c(x) * 3) / 3,
    "loop": lambda x, c: [x := nn.relu(c(x))[..., :3] for _ in range(3)][-1],
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name):
    conv, x = small_conv(), image()

    def plain(x):
        return FUNCTIONS[name](x, conv)

    fast = fast_of(plain)
    actual, expected = fast(x), plain(x)
    if name in ("integers", "comparison", "argmax", "floor", "remainder", "there and back"):
        differs = np.abs(to_numpy(actual).astype(np.float64) - to_numpy(expected).astype(np.float64)) > 1e-4
        assert actual.dtype == expected.dtype and differs.mean() < 0.02  # values at a step may fall to either side
    else:
        assert_close(actual, expected, rtol=2e-5)
    assert num_kernels(fast) >= 1


PADDINGS = {
    "zeros": lambda x: mx.pad(x, ((0, 0), (1, 2), (0, 3), (0, 0))),
    "minus zero": lambda x: mx.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-0.0),
    "ones": lambda x: mx.pad(x, ((0, 0), (1, 2), (0, 3), (0, 0)), constant_values=1.0),
    "minus infinity": lambda x: mx.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-math.inf),
    "an array": lambda x: mx.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=x.max()),
    "batch": lambda x: mx.pad(x, ((1, 0), (0, 0), (0, 0), (0, 0))),
    "channels": lambda x: mx.pad(x[..., :2], ((0, 0), (0, 0), (0, 0), (0, 1))),
    "channels and space": lambda x: mx.pad(x[..., :2], ((0, 0), (1, 1), (2, 0), (1, 0))),
    "edge": lambda x: mx.pad(x, ((0, 0), (1, 1), (2, 2), (0, 0)), mode="edge"),
    "twice": lambda x: mx.pad(mx.pad(x, ((0, 0), (1, 0), (1, 0), (0, 0))), ((0, 0), (0, 2), (0, 2), (0, 0))),
    "ones around zeros": lambda x: mx.pad(mx.pad(x, 1), 1, constant_values=1.0)[1:-1, :, :, 2:-2],
}


@pytest.mark.parametrize("name", PADDINGS)
def test_padding(name):
    conv, x = small_conv(), image()

    def plain(x):
        return nn.relu(conv(PADDINGS[name](x)))

    fast = fast_of(plain)
    assert_close(fast(x), plain(x))


def test_batch_norm_with_awkward_statistics():
    """Folded scales of huge, tiny and zero variance, and a NaN in one channel only."""
    net, x = nn.Sequential(small_conv(), nn.BatchNorm(4), nn.ReLU()), image()
    net.eval()
    fast, norm = fast_of(net), net.layers[1]
    for variance in ([1e-12, 0.0, 1e12, 1.0], [1.0, math.nan, 1.0, math.inf]):
        norm.running_var = mx.array(variance)
        norm.weight, norm.bias = mx.array([0.0, -1.0, 1e6, 1.0]), mx.array([-0.0, 1.0, 0.0, math.nan])
        a, b = to_numpy(fast(x)), to_numpy(net(x))
        np.testing.assert_array_equal(np.isnan(a), np.isnan(b))
        for channel in range(4):
            scale = np.nan_to_num(np.abs(b[..., channel])).max()
            np.testing.assert_allclose(a[..., channel], b[..., channel], rtol=1e-4, atol=1e-5 * scale)


class Divided(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.scale = mx.array([1.0, 0.0, -2.0, 1e-30])

    def __call__(self, x):
        return self.conv(x) / self.scale


def test_division_by_a_parameter_that_is_zero():
    """Sums divided by it are infinities; so are none of the products with 1 / 0 that cancel."""
    net, x = Divided(), image()
    assert_same_numbers(fast_of(net)(x), net(x))


def test_float64_and_complex_stay_themselves():
    x = image()

    def plain(x):
        y = small(x)
        return y, mx.real(mx.fft.fft(y, axis=1)), y.astype(mx.complex64) * 1j

    small = small_conv()
    fast = convjit.compile(plain, fallback="quiet")
    for _ in range(2):
        for a, b in zip(fast(x), plain(x), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_allclose(np.array(a), np.array(b), rtol=1e-4, atol=1e-4)
    with mx.stream(mx.cpu):
        wide = small.weight.astype(mx.float64)
        double = convjit.compile(lambda x: mx.conv2d(x.astype(mx.float64), wide), fallback="quiet")
        assert double(x).dtype == mx.float64
        assert_close(double(x), mx.conv2d(x.astype(mx.float64), wide), rtol=1e-13)
    assert num_kernels(double) == 0 and "its dtype is neither" in reasons(double)


def test_quantised_layers_and_spectra_beside_convolutions():
    """Ops that only MLX has stay MLX's, and the convolutions around them are compiled."""

    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.linear = nn.Conv2d(3, 32, 3, padding=1), nn.Linear(32, 32)

        def __call__(self, x):
            return mx.abs(mx.fft.rfft(nn.relu(self.linear(self.conv(x))), axis=2))

    model, x = Mixed(), image()
    fast = fast_of(model)
    assert_close(fast(x), model(x))
    nn.quantize(model, group_size=32)
    assert_close(fast(x), model(x))
    assert isinstance(model.linear, nn.QuantizedLinear) and num_kernels(fast) == 1
