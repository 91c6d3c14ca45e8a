"""The Metal kernels direct and grouped: their text, run on the host, against float64."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

import kernels
import mlx.core as mx
import numpy as np
import pytest
import reference
from kernels import (
    BACKEND,
    Array,
    Writer,
    bias_silu,
    random_array,
    random_geometry,
    random_kernel,
    simulate,
)

from convjit import simulator
from convjit.backends import Call, Stretch
from convjit.backends.metal import MetalBackend
from convjit.emit.metal.direct import MAX_CHAIN
from convjit.emit.metal.language import METAL
from convjit.geometry import Geometry, Window, plain_window
from convjit.kernel import Epilogue, Extra, Instruction, Kernel, identity_epilogue
from convjit.schedule.metal.chip import DEFAULT
from convjit.schedule.metal.direct import direct
from convjit.schedule.metal.grouped import grouped


def check(kernel: Kernel, seed: int = 0) -> None:
    kernels.check(kernel, direct(kernel), seed)


@pytest.mark.parametrize("seed", range(24))
def test_random_geometries(seed: int) -> None:
    """By one thread a pixel, and, where that is possible, by one for several."""
    choose = random.Random(seed)
    kernel = random_kernel(choose, random_geometry(choose))
    check(kernel, seed)
    for schedule in grouped(kernel, DEFAULT)[:1]:
        kernels.check(kernel, schedule, seed)


@pytest.mark.parametrize(
    ("x", "w", "window"),
    [
        ((1, 1, 1), (1, 1, 1), plain_window(1)),
        ((1, 2, 3), (1, 1, 3), plain_window(1)),
        ((1, 1, 1, 7), (7, 1, 1, 1), plain_window(2, groups=7)),
        ((2, 1, 1, 1, 1), (3, 1, 1, 1, 1), plain_window(3)),
        ((1, 3, 3, 2), (70, 1, 1, 2), plain_window(2)),
        ((1, 2, 2, 1), (1, 1, 1, 1), Window((1, 1), (1, 2), (0, 1), (1, 1), (1, 1))),
    ],
)
@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_tiny_inputs(x: tuple[int, ...], w: tuple[int, ...], window: Window, dtype: str) -> None:
    """Arrays of fewer than 8 elements come in another address space; a padded 1x1 kernel still has a loop to leave."""
    geometry = Geometry.of_shapes(x, w, window)
    extra = Extra((*(1,) * (len(x) - 1), w[0]), dtype)
    check(Kernel(geometry, dtype, (extra,), bias_silu(dtype), (dtype,)))


def test_scalar_extra_of_rank_0() -> None:
    write = Writer("f32", "f32")
    epilogue = write.epilogue(write("arith.mulf", 0, 1))
    geometry = Geometry.of_shapes((1, 4, 2), (3, 2, 2), plain_window(1))
    kernel = Kernel(geometry, "f32", (Extra((1, 1, 1), "f32"),), epilogue, ("f32",))
    x, w = random_array(0, geometry.in_shape, "f32"), random_array(1, geometry.weight_shape, "f32")
    (y,) = simulate(kernel, direct(kernel), x, w, [mx.array(2.5)])
    np.testing.assert_allclose(y, 2.5 * reference.convolution(geometry, np.array(x), np.array(w)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("channels", [600, MAX_CHAIN + 3])
def test_long_sums_are_made_of_partial_ones(channels: int) -> None:
    """Equal numbers make the rounding of one long chain grow, that of partial sums hardly."""
    geometry = Geometry.of_shapes((1, 8, channels), (2, 8, channels), plain_window(1))
    kernel = Kernel(geometry, "f32", (), identity_epilogue("f32"), ("f32",))
    assert "partial" in BACKEND.source(kernel, direct(kernel))
    x, w = mx.full(geometry.in_shape, 1.1), mx.full(geometry.weight_shape, 0.7)
    (y,) = simulate(kernel, direct(kernel), x, w, [])
    exact = reference.convolution(geometry, np.array(x), np.array(w))
    assert np.abs(y / exact - 1).max() < 1e-5


def test_nan_and_infinity_stay_where_they_are() -> None:
    geometry = Geometry.of_shapes((1, 9, 9, 2), (4, 3, 3, 2), plain_window(2))
    kernel = Kernel(geometry, "f32", (), identity_epilogue("f32"), ("f32",))
    x, w = np.ones(geometry.in_shape, np.float32), np.ones(geometry.weight_shape, np.float32)
    x[0, 0, 0, 0], x[0, 8, 8, 1] = np.nan, np.inf
    (y,) = simulate(kernel, direct(kernel), mx.array(x), mx.array(w), [])
    np.testing.assert_array_equal(y, reference.convolution(geometry, x, w))
    assert np.isnan(y).sum() == np.isinf(y).sum() == 4


# ---- Every op of an epilogue, as results of one kernel that reads pairs of values.

UNARY = [
    *("absf", "ceil", "floor", "roundeven", "exp", "expm1", "log", "log1p", "log2", "log10"),
    *("sqrt", "rsqrt", "sin", "cos", "tan", "tanh", "erf"),
]
BINARY = ["arith.addf", "arith.subf", "arith.mulf", "arith.divf", "math.powf"]
PREDICATES = [*("oeq", "ogt", "oge", "olt", "ole", "one", "ord"), *("ueq", "ugt", "uge", "ult", "ule", "une", "uno")]
SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 3.5, 1e-7, -1e-7, 1e30, -1e30, 90.0, -90.0, np.inf, -np.inf, np.nan]


def evaluate(write: Writer, results: Sequence[int], x: Array, y: Array) -> tuple[list[Array], list[Array]]:
    """An epilogue of elements of x and y, its values 1 and 2: what the kernel gives, and what float64 does."""
    geometry = Geometry.of_shapes((1, len(x), 1), (1, 1, 1), plain_window(1))
    extra = Extra(geometry.out_shape, "f32")
    kernel = Kernel(geometry, "f32", (extra, extra), write.epilogue(*results), ("f32",) * len(results))
    extras = [mx.array(v, mx.float32).reshape(geometry.out_shape) for v in (x, y)]
    computed = simulate(kernel, direct(kernel), mx.ones(geometry.in_shape), mx.ones((1, 1, 1)), extras)
    expected = reference.epilogue(kernel.epilogue, [np.ones(len(x)), x, y])
    return [c.ravel() for c in computed], [np.broadcast_to(e, x.shape).astype(np.float64) for e in expected]


def assert_ulps(names: Sequence[str], computed: list[Array], expected: list[Array], ulps: float) -> None:
    for name, y, exact in zip(names, computed, expected, strict=True):
        rounded = reference.round_to(exact, "f32")
        with np.errstate(invalid="ignore"):
            near = np.abs(y - exact) <= ulps * np.spacing(np.abs(rounded).astype(np.float32))
        same = (y == rounded) | (np.isnan(y) & np.isnan(rounded))
        assert (near | same).all(), (name, y[~(near | same)], exact[~(near | same)])


def pairs() -> tuple[Array, Array]:
    x, y = np.meshgrid(np.float32(SPECIAL).astype(np.float64), np.float32(SPECIAL).astype(np.float64))
    return x.ravel(), y.ravel()


def test_unary_ops() -> None:
    """Special values, and 2,000 numbers of all magnitudes, within 4 units in the last place."""
    write = Writer("f32", "f32", "f32")
    results = [write(f"math.{op}", 1) for op in UNARY] + [write("arith.negf", 1)]
    rng = np.random.default_rng(0)
    numbers = np.float32(rng.normal(size=2000) * 10.0 ** rng.uniform(-8, 2, 2000)).astype(np.float64)
    x = np.concatenate([SPECIAL, numbers]).astype(np.float32).astype(np.float64)
    assert_ulps([*UNARY, "negf"], *evaluate(write, results, x, x), ulps=4)


def test_binary_ops() -> None:
    write = Writer("f32", "f32", "f32")
    results = [write(op, 1, 2) for op in BINARY]
    assert_ulps(BINARY, *evaluate(write, results, *pairs()), ulps=2)


def test_comparisons() -> None:
    """Exact for NaN as well; through select, uitofp and the ops of i1."""
    write = Writer("f32", "f32", "f32")
    results = [
        write("arith.uitofp", write("arith.cmpf", 1, 2, type="i1", attribute=predicate)) for predicate in PREDICATES
    ]
    larger = write("arith.cmpf", 1, 2, type="i1", attribute="ogt")
    ordered = write("arith.cmpf", 1, 2, type="i1", attribute="ord")
    results.append(write("arith.select", larger, 1, 2))
    for op in ("andi", "ori", "xori"):
        results.append(write("arith.uitofp", write(f"arith.{op}", larger, ordered, type="i1")))
    assert_ulps([*PREDICATES, "select", "andi", "ori", "xori"], *evaluate(write, results, *pairs()), ulps=0)


@pytest.mark.parametrize("value", [0.0, -0.0, 1.0, 0.1, -1e-45, 3.4e38, 1e39, 1e20, np.inf, -np.inf, np.nan])
def test_constants_are_written_exactly(value: float) -> None:
    text = METAL.constant(value, "f32")
    spoken = {"INFINITY": "inf", "-INFINITY": "-inf", "NAN": "nan"}.get(text, text.removesuffix("f"))
    with np.errstate(over="ignore"):
        assert np.float32(spoken).tobytes() == np.float32(value).tobytes()


# ---- The text, and the backend around it.


def strided_kernel() -> Kernel:
    geometry = Geometry.of_shapes((1, 12, 12, 3), (16, 3, 3, 3), Window((2, 2), (1, 1), (1, 1), (1, 1), (1, 1)))
    return Kernel(geometry, "f16", (Extra((1, 1, 1, 16), "f16"),), bias_silu("f16"), ("f16",))


def test_only_the_functions_that_are_used_are_written() -> None:
    write = Writer("f32")
    kernel = strided_kernel()
    kernel = Kernel(kernel.geometry, "f32", (), write.epilogue(write("math.erf", 0)), ("f32",))
    assert re.findall(r"inline float (\w+)", BACKEND.source(kernel, direct(kernel))) == ["cj_erf"]


def test_text_does_not_depend_on_the_batch() -> None:
    def source(batch: int) -> str:
        geometry = Geometry.of_shapes((batch, 8, 8), (8, 3, 8), plain_window(1))
        extras = (Extra((1, 1, 8), "f32"),)
        kernel = Kernel(geometry, "f32", extras, bias_silu("f32"), ("f32",))
        return BACKEND.source(kernel, direct(kernel))

    assert source(1) == source(2) == source(7)


def test_indices_are_64_bit_only_where_sizes_need_it() -> None:
    def source(width: int) -> str:
        geometry = Geometry.of_shapes((1, width, 8), (8, 1, 8), plain_window(1))
        kernel = Kernel(geometry, "f32", (), identity_epilogue("f32"), ("f32",))
        return BACKEND.source(kernel, direct(kernel))

    assert "const int from" in source(1 << 20)
    assert "const long from" in source(1 << 28)


def test_what_metal_cannot_take_is_said() -> None:
    geometry = strided_kernel().geometry
    many = tuple(Extra((1, 1, 1, 1), "f32") for _ in range(29))
    plain = Epilogue(("f32",) * 30, (), (0,))
    assert BACKEND.schedule(Kernel(geometry, "f32", many, plain, ("f32",))) == "needs 32 buffers; a Metal kernel has 31"
    odd = Epilogue(("f32",), (Instruction("math.atan", (0,), "f32"),), (1,))
    assert BACKEND.schedule(Kernel(geometry, "f32", (), odd, ("f32",))) == "cannot write math.atan in Metal"


def test_metal_runner_can_be_traced() -> None:
    """Anywhere: only evaluating a result needs a Metal device."""
    kernel = strided_kernel()
    run = MetalBackend().load(Stretch.of_kernel(kernel, direct(kernel)))
    shapes: list[tuple[int, ...]] = [kernel.geometry.in_shape, (3, 3, 3, 16), (16,)]
    trace = simulator.capture(lambda *a: run(a), *(mx.zeros(s, mx.float16) for s in shapes))
    ((_, shape, dtype),) = trace.launches[0].outputs
    assert (shape, dtype) == (kernel.geometry.out_shape, mx.float16)


def test_a_stretch_of_two_kernels() -> None:
    geometry = Geometry.of_shapes((2, 6, 6, 3), (3, 3, 3, 3), Window((1, 1), (1, 1), (1, 1), (1, 1), (1, 1)))
    kernel = Kernel(geometry, "f32", (), identity_epilogue("f32"), ("f32",))
    schedule = direct(kernel)
    stretch = Stretch(3, (Call(kernel, schedule, (0, 1), (3,)), Call(kernel, schedule, (3, 2), (4,))), (4, 3, 0))
    x, w, v = (random_array(i, s, "f32") for i, s in enumerate([geometry.in_shape] + [geometry.weight_shape] * 2))
    pack: Callable[[mx.array], mx.array] = lambda a: BACKEND.pack(geometry.window, schedule, a)  # noqa: E731
    second, first, same = BACKEND.load(stretch)([x, pack(w), pack(v)])
    middle = reference.convolution(geometry, np.array(x), np.array(w))
    np.testing.assert_allclose(np.array(first), middle, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        np.array(second), reference.convolution(geometry, middle, np.array(v)), rtol=1e-4, atol=1e-3
    )
    assert mx.array_equal(same, x)
