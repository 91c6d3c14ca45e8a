"""Every rule of `convjit.ir.replay` against MLX, bit for bit, on traced programs; and what has no rule is refused."""

import math

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from convjit.ir import replay
from convjit.ir.types import from_attribute, to_attribute

SHAPE = (2, 6, 8, 4)


def normal(seed: int, *shape: int) -> mx.array:
    return mx.random.normal(shape or SHAPE, key=mx.random.key(seed))


def with_special_values() -> mx.array:
    values = np.array(normal(0))
    values.flat[:6] = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40]
    return mx.array(values)


X, U = with_special_values(), normal(1)
MASK, INTEGERS, SHIFTS = U > 0, mx.arange(24).reshape(4, 6), mx.arange(24).reshape(4, 6) % 7
INDICES, START = mx.array([[0, 1], [1, 0]]), mx.array([0, 1])
KEY, ODD_AND_EVEN = mx.random.key(7), ((), (0,), (1,), (2,), (7, 3), (4, 6), (5, 5, 5))
QUANTIZED = mx.quantize(normal(2, 64, 32), group_size=32, bits=4)
QUANTIZED_MXFP4 = mx.quantize(normal(3, 64, 32), group_size=32, bits=4, mode="mxfp4")
mx.eval(X, U, MASK, INTEGERS, SHIFTS, INDICES, START, KEY, QUANTIZED, QUANTIZED_MXFP4)


def assigned(x):
    y = x + 1
    y[:, 1] = 3.0
    y[0, ::2] = U[0, ::2]
    return y


def scattered(x):
    y = x + 0
    y[INDICES] = U
    y[:, INDICES] = 2.0
    return y


UNARY = """abs arccos arcsin arcsinh arctan arctanh ceil cos cosh erf erfinv exp expm1 floor log log2 log10 log1p
logical_not negative round sigmoid sign sin sinh sqrt rsqrt square tan tanh isnan isinf isfinite reciprocal degrees"""
BINARY = """add arctan2 divide equal floor_divide greater greater_equal less less_equal logaddexp logical_and logical_or
maximum minimum multiply not_equal power remainder subtract"""
BITWISE = "bitwise_and bitwise_or bitwise_xor left_shift right_shift"
ACTIVATIONS = """gelu gelu_approx gelu_fast_approx silu mish hardswish elu celu selu softplus softshrink hard_shrink
hard_tanh log_sigmoid relu relu6 step glu relu2 softsign log_softmax softmin leaky_relu"""

LINEAR = nn.Linear(4, 3)
mx.eval(LINEAR.parameters())

CASES = {
    **{name: lambda x, name=name: getattr(mx, name)(x * 0.3) for name in UNARY.split()},
    **{name: lambda x, name=name: getattr(mx, name)(x, U) for name in BINARY.split()},
    **{f"{name} reversed": lambda x, name=name: getattr(mx, name)(U, x) for name in ("maximum", "minimum", "power")},
    **{name: lambda x, name=name: getattr(mx, name)(x, SHIFTS) for name in BITWISE.split()},
    **{f"nn.{name}": lambda x, name=name: getattr(nn, name)(x) for name in ACTIVATIONS.split()},
    "arccosh": lambda x: mx.arccosh(x * x + 1.0),
    "divmod": lambda x: mx.divmod(x, U),
    "array_equal": lambda x: [mx.array_equal(x, x), mx.array_equal(x, x, equal_nan=True)],
    "where": lambda x: mx.where(MASK, x, U),
    "casts": lambda x: [x.astype(mx.float16), (x > 0).astype(mx.int8), U.astype(mx.int32) + (x > 0)],
    "view": lambda x: [x.view(mx.uint32), x.view(mx.int16), x.view(mx.complex64)],
    "complex": lambda x: [mx.real(x), mx.imag(x), mx.conj(x), x * x, mx.abs(x)],
    "matmul": lambda x: x @ U.transpose(0, 1, 3, 2),
    "addmm": lambda x: mx.addmm(U[0, 0], x[0, 0], mx.ones((4, 4)), alpha=2.0, beta=0.5),
    "linear": lambda x: LINEAR(x),
    "quantized_matmul": lambda x: [
        mx.quantized_matmul(x[:, :, :, :1] * mx.ones(32), *QUANTIZED, group_size=32, bits=4),
        mx.quantized_matmul(x[:, :, :, :1] * mx.ones(64), *QUANTIZED, transpose=False, group_size=32, bits=4),
        mx.quantized_matmul(x[0, 0, :, :1] * mx.ones(32), *QUANTIZED_MXFP4, group_size=32, bits=4, mode="mxfp4"),
    ],
    "quantize": lambda x: [
        *mx.quantize(U.reshape(-1, 64) + 0 * x[1, 0, 0, 0], group_size=64, bits=8),
        mx.dequantize(*QUANTIZED, group_size=32, bits=4) + x[0, 0, 0, 0],
    ],
    "fft": lambda x: [mx.fft.fft(U + 0 * x[1]), mx.fft.ifft2(U + 0 * x[1], axes=(1, 2)), mx.fft.rfft(U, n=6, axis=1)],
    "inverse real fft": lambda x: [mx.fft.irfft(mx.fft.rfft(U, axis=2), n=n, axis=2) for n in (7, 8)],
    "hadamard": lambda x: mx.hadamard_transform(x[1], 0.25),
    "conv1d": lambda x: mx.conv1d(x[0], mx.ones((3, 3, 4)), stride=2, padding=1),
    "conv2d": lambda x: mx.conv2d(x, mx.ones((4, 3, 2, 2)), stride=2, padding=(1, 2), dilation=2, groups=2),
    "conv3d": lambda x: mx.conv3d(x[None], mx.ones((3, 1, 2, 2, 4)), padding=1),
    "conv_transpose2d": lambda x: mx.conv_transpose2d(x, U[:, :3, :3], stride=2, padding=1, output_padding=1),
    "conv_general": lambda x: mx.conv_general(x, U[:, :3, :3], padding=([1, 0], [2, 1]), input_dilation=2, flip=True),
    "reductions": lambda x: [f(x, axis=(1, 2)) for f in (mx.sum, mx.prod, mx.min, mx.max, mx.mean, mx.var, mx.std)],
    "all and any": lambda x: [mx.all(x > 0, axis=1), mx.any(x > 0), mx.all(x, axis=-1, keepdims=True)],
    "argmax": lambda x: [mx.argmax(x, axis=1), mx.argmin(x), mx.argmax(U, axis=-1, keepdims=True)],
    "sorting": lambda x: [mx.sort(U * x.shape[0], axis=1), mx.argsort(U + 0 * U, axis=2)],
    "partition": lambda x: [mx.sort(mx.topk(x * 0 + U, 2)), mx.sort(mx.partition(U + 0, 2, axis=1)[:, :2], axis=1)],
    "argpartition": lambda x: mx.argpartition(U * 2, 3, axis=2)[:, :, 3],
    "logsumexp": lambda x: [mx.logsumexp(x, -1), mx.logsumexp(x, 1), mx.logsumexp(x)],
    "softmax": lambda x: [mx.softmax(x, -1), mx.softmax(x, 1, precise=True)],
    "scans": lambda x: [mx.cumsum(x, 1), mx.cumprod(x, 2, reverse=True), mx.cummax(x, 0, inclusive=False)],
    "scans, reversed": lambda x: [mx.cummin(x, 1), mx.cumsum(x, -1, reverse=True, inclusive=False)],
    "reshapes": lambda x: [x.reshape(-1, 4), x.flatten(1, 2), mx.unflatten(x, 1, (2, 3)), x[None, :, None], x[:1][0]],
    "transposes": lambda x: [x.transpose(0, 3, 1, 2), mx.moveaxis(x, 1, 2), x.swapaxes(0, 3), x.T],
    "joins": lambda x: [mx.concatenate([x, U], 1), mx.stack([x, U], 1), mx.repeat(x, 2, 1), mx.tile(x, (1, 2, 1, 1))],
    "splits": lambda x: [*mx.split(x, 2, 1), *mx.split(x, [1, 4], 2)],
    "pads": lambda x: [mx.pad(x, ((0, 0), (1, 2), (0, 1), (0, 0)), constant_values=1.5), mx.pad(x, 1)],
    "pad modes": lambda x: [
        mx.pad(x, 1, mode="edge"),
        mx.pad(x, ((0, 0), (1, 0), (2, 0), (0, 0)), constant_values=x[0, 0, 0, 0]),
    ],
    "roll": lambda x: [mx.roll(x, 1, 1), mx.roll(x, -2)],
    "broadcasts": lambda x: [mx.broadcast_to(x[:1], (5, 6, 8, 4)), x + mx.arange(4), x * mx.ones((6, 1, 1))],
    "as_strided": lambda x: mx.as_strided(x, (3, 3), (2, 1), 4),
    "slices": lambda x: [x[:, 1:3], x[:, -2:, ::2], x[:, :0], x[0], x[..., -1]],
    "reversed slices": lambda x: [x[::-1], x[:, ::-2, 1:], x[..., 3:0:-1], x[:, 5:1:-3], x[..., ::-1]],
    "slice updates": assigned,
    "slice update, at": lambda x: [x.at[:, 1:3].add(U[:, 1:3]), x.at[0].maximum(U[0]), x.at[:, ::2].multiply(2.0)],
    "slice update, minimum": lambda x: [x.at[:, ::-2].minimum(0.0), x.at[1, 2:4].subtract(1.0)],
    "gathers": lambda x: [x[INDICES], x[:, INDICES], x[INDICES, INDICES], x[:, INDICES, INDICES], x[0, INDICES]],
    "take": lambda x: [mx.take(x, INDICES, axis=2), x[..., mx.array([1, 2])], mx.take(x, mx.array(3))],
    "along axis": lambda x: [mx.take_along_axis(x, mx.argsort(U, 1), 1), mx.put_along_axis(x, mx.argsort(U, 1), U, 1)],
    "gradient of along axis": lambda x: mx.grad(lambda y: (mx.take_along_axis(y, INDICES, 1) * x[:2, :2, 0, 0]).sum())(
        U[:2, :4, 0, 0] + 0 * x[:2, :4, 0, 0]
    ),
    "scatters": scattered,
    "scatters, at": lambda x: [x.at[INDICES].add(1.0), x.at[:, INDICES].add(1.0), x.at[INDICES, INDICES].multiply(3.0)],
    "scatters, extremes": lambda x: [x.at[INDICES[0]].maximum(0.5), x.at[:, INDICES[0]].minimum(0.5)],
    "scatter along axis": lambda x: mx.zeros(SHAPE).at[mx.array([1, 0, 1])].add(1.0) + x,
    "made": lambda x: [x + mx.arange(4), x * mx.full((4,), 2.0), x[0, 0, 0, 0] * mx.ones(3), mx.eye(3) * x[0, 0, 0, 0]],
    "made of numbers": lambda x: [mx.arange(0, 5, 0.5) + x[0, 0, 0, 0], mx.linspace(0, 1, 5), mx.tri(3), mx.triu(x[0])],
    "made of values": lambda x: [mx.full((2, 3), x[0, 0, 0, 0]), mx.full((4, 2), x[0, 0, 0, :2]), mx.zeros_like(x)],
    "dynamic slices": lambda x: [
        mx.slice(x, START, (0, 1), (2, 3, 8, 4)),
        mx.slice_update(x, U[:1, :2], START, (0, 1)),
    ],
    "norms": lambda x: [mx.fast.rms_norm(x, mx.ones(4), 1e-5), mx.fast.layer_norm(x, None, None, 1e-5)],
    "pools": lambda x: [nn.MaxPool2d(2, 2)(x), nn.MaxPool2d(3, 2, 1)(x), nn.AvgPool2d(3, 1, 1)(x)],
    "upsampling": lambda x: [nn.Upsample(2)(x), nn.Upsample(2, mode="linear")(x)],
    "gradient": lambda x: mx.grad(lambda x: nn.gelu(mx.conv2d(x, U[:, :3, :3], padding=1)).square().sum())(
        U + 0 * x[0]
    ),
    "statistics": lambda x: nn.BatchNorm(4)(x),
    "einsum": lambda x: mx.einsum("nhwc,nhwd->ncd", x, U),
    "tensordot": lambda x: [
        mx.tensordot(x, U, [[1, 2], [1, 2]]),
        mx.inner(x[0, 0], U[0, 0]),
        mx.outer(x[0, 0, 0], U[0, 0, 0]),
    ],
    "random numbers": lambda x: [mx.random.uniform(shape=shape, key=KEY) + x[0, 0, 0, 0] for shape in ODD_AND_EVEN],
    "random bits": lambda x: [mx.random.split(KEY, 3), *(mx.random.permutation(n, key=KEY) for n in (1, 2, 5, 8))],
    "constants": lambda x: [
        x * math.inf,
        x + math.nan,
        x * -0.0,
        mx.maximum(x, -math.inf),
        x.astype(mx.float16) * 65504,
    ],
}
INPUTS = {
    "complex": (X + 1j * U),
    **dict.fromkeys(BITWISE.split(), INTEGERS),
}


def trace(function, x):
    records: list[dict] = []
    mx.export_function(records.append, function, x)
    headers = {r["type"]: r for r in records if r["type"] != "primitive"}
    return headers, [r for r in records if r["type"] == "primitive"]


def replayed(function, x) -> tuple[list[mx.array], set[str]]:
    """The outputs of `function`, primitive by primitive, and the primitives' names."""
    headers, primitives = trace(function, x)
    values = {headers["inputs"]["inputs"][0][0]: x, **dict(headers["constants"]["constants"])}
    for r in primitives:
        outputs = [(tuple(shape), dtype) for _, shape, dtype in r["outputs"]]
        arguments = from_attribute(to_attribute(r["arguments"])) if r["arguments"] else ()
        results = replay.call(r["name"], arguments, [values[name] for name, *_ in r["inputs"]], outputs)
        assert [(y.shape, y.dtype) for y in results] == outputs, r
        values.update(zip((name for name, *_ in r["outputs"]), results, strict=True))
    return [values[name] for name, *_ in headers["outputs"]["outputs"]], {r["name"] for r in primitives}


def assert_identical(actual: mx.array, expected: mx.array):
    assert actual.shape == expected.shape and actual.dtype == expected.dtype
    np.testing.assert_array_equal(np.array(actual), np.array(expected))
    if mx.issubdtype(expected.dtype, mx.floating):
        zeros = np.array(expected) == 0
        np.testing.assert_array_equal(np.signbit(np.array(actual)[zeros]), np.signbit(np.array(expected)[zeros]))


ATTENTION = [normal(seed, 1, 2, 5, 8) for seed in (4, 5, 6)]
BIAS, SINKS, FREQS = normal(7, 1, 2, 5, 5), normal(8, 2), mx.abs(normal(9, 2)) + 1.0


def gradients(function, *arrays):
    """Those of a function of `arrays` but the last one, which is the cotangent."""
    return mx.vjp(function, list(arrays[:-1]), [arrays[-1]])[1]


# primitive, arguments, inputs, what they stand for; after the headers of MLX 0.32.4, as no trace on a CPU has them
WHOLE_ON_METAL = [
    ("RMSNorm", (1e-5,), [U, U[0, 0, 0]], mx.fast.rms_norm(U, U[0, 0, 0], 1e-5)),
    ("RMSNorm", (1e-5,), [U, mx.array(1.0)], mx.fast.rms_norm(U, None, 1e-5)),
    ("LayerNorm", (1e-3,), [U, U[0, 0, 0], U[0, 0, 1]], mx.fast.layer_norm(U, U[0, 0, 0], U[0, 0, 1], 1e-3)),
    ("LayerNorm", (1e-3,), [U, mx.array(1.0), mx.array(0.0)], mx.fast.layer_norm(U, None, None, 1e-3)),
    (
        "RMSNormVJP",
        (1e-5,),
        [U, U[0, 0, 0], U * 2],
        gradients(lambda x, w: mx.fast.rms_norm(x, w, 1e-5), U, U[0, 0, 0], U * 2),
    ),
    (
        "LayerNormVJP",
        (1e-5,),
        [U, mx.array(1.0), mx.array(0.0), U * 2],
        [*gradients(lambda x: mx.fast.layer_norm(x, None, None, 1e-5), U, U * 2), mx.array(0.0), mx.array(0.0)],
    ),
    (
        "RoPE",
        (4, False, 10000.0, 0.5, True),
        [U, mx.array(3)],
        mx.fast.rope(U, 4, traditional=False, base=10000.0, scale=0.5, offset=3),
    ),
    (
        "RoPE",
        (4, True, 1.0, 1.0, True),
        [U, mx.array(0), FREQS],
        mx.fast.rope(U, 4, traditional=True, base=None, scale=1.0, offset=0, freqs=FREQS),
    ),
    (
        "RoPE",
        (4, True, 100.0, 1.0, False),
        [U, mx.array(2)],
        gradients(lambda x: mx.fast.rope(x, 4, traditional=True, base=100.0, scale=1.0, offset=2), X, U)[0],
    ),
    *(
        (
            "ScaledDotProductAttention",
            (0.3, causal, sinks is not None, False, False),
            [*ATTENTION, *([] if mask is None else [mask]), *([] if sinks is None else [sinks])],
            mx.fast.scaled_dot_product_attention(*ATTENTION, scale=0.3, mask="causal" if causal else mask, sinks=sinks),
        )
        for causal, mask, sinks in (
            (False, None, None),
            (True, None, None),
            (False, BIAS, None),
            (False, BIAS, SINKS),
            (True, None, SINKS),
        )
    ),
]
SEEN: set[str] = {name for name, *_ in WHOLE_ON_METAL}


@pytest.mark.parametrize("name", CASES)
def test_bit_for_bit(name):
    x = INPUTS.get(name, X)
    mx.random.seed(3)
    expected = CASES[name](x)
    expected = expected if isinstance(expected, (list, tuple)) else [expected]
    mx.eval(expected)
    mx.random.seed(3)
    actual, names = replayed(CASES[name], x)
    SEEN.update(names)
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected, strict=True):
        assert_identical(a, b)


@pytest.mark.parametrize(
    ("name", "arguments", "inputs", "expected"), WHOLE_ON_METAL, ids=[name for name, *_ in WHOLE_ON_METAL]
)
def test_what_mlx_keeps_whole_on_metal(name, arguments, inputs, expected):
    expected = expected if isinstance(expected, (list, tuple)) else [expected]
    actual = replay.call(name, arguments, inputs, [(y.shape, y.dtype) for y in expected])
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected, strict=True):
        assert_identical(a, b)


def test_every_rule_was_replayed():
    """Runs after the cases; alone, it replays them first."""
    for name, function in CASES.items():
        if not replay.RULES.keys() <= SEEN:
            SEEN.update(replayed(function, INPUTS.get(name, X))[1])
    assert replay.RULES.keys() - SEEN == set()


def test_inputs_are_not_changed():
    """In particular where the primitive is an update."""
    for name in ("slice updates", "scatters", "along axis", "dynamic slices"):
        before = np.array(X)
        mx.eval(replayed(CASES[name], X)[0])
        np.testing.assert_array_equal(np.array(X), before)


@pytest.mark.parametrize("name", replay.RULES)
def test_another_number_of_arguments_is_refused(name):
    count = replay.RULES[name].arguments
    replay.check(name, (0,) * count)
    for other in (count + 1, count - 1):
        if other >= 0:
            with pytest.raises(replay.UnknownPrimitive, match=f"{name} came with {other} arguments"):
                replay.check(name, (0,) * other)
            with pytest.raises(replay.UnknownPrimitive):
                replay.call(name, (0,) * other, [X], [(X.shape, X.dtype)])


@pytest.mark.parametrize("name", ["Inverse", "Cholesky", "CustomKernel", "add", ""])
def test_an_unknown_primitive_is_refused(name):
    with pytest.raises(replay.UnknownPrimitive, match=f"primitive {name} has no replay rule"):
        replay.call(name, (), [X], [(X.shape, X.dtype)])


def test_forms_that_the_table_does_not_know_are_refused():
    with pytest.raises(replay.UnknownPrimitive, match="partial slices"):
        replay.call("Gather", ((0,), (1, 3, 8, 4)), [X, INDICES], [((2, 2, 1, 3, 8, 4), X.dtype)])
    with pytest.raises(replay.UnknownPrimitive, match="Scatter with partial slices"):
        replayed(lambda x: x.at[INDICES, :, 1].add(1.0), X)
    with pytest.raises(replay.UnknownPrimitive, match="RandomBits of 1 axes of keys"):
        replayed(lambda x: mx.vmap(lambda key: mx.random.uniform(key=key))(mx.random.split(KEY, 3)) + x[0, 0, 0, :3], X)
    with pytest.raises(replay.UnknownPrimitive, match="ScatterAxis with reduction 3"):
        replay.call("ScatterAxis", (3, 0), [X, INDICES, U], [(X.shape, X.dtype)])
    with pytest.raises(replay.UnknownPrimitive, match="Quantize of mode 3"):
        replay.call("Quantize", (16, 4, 3, False), [U], [(U.shape, U.dtype)])
    with pytest.raises(replay.UnknownPrimitive, match="ScaledDotProductAttention for a gradient"):
        replay.call("ScaledDotProductAttention", (0.3, False, False, True, False), ATTENTION, [])
