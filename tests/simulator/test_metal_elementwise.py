"""The Metal kernels elementwise and elementwise_sums: their text, run on the host, against float64."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod

import mlx.core as mx
import numpy as np
import pytest
from elementwise_checks import by_tile, check, chosen_for, simulate
from elementwise_kernels import numbers_for, total
from kernels import BACKEND, Writer, loaded, maximum, stored, to_numpy
from reference import round_to

from convjit import simulator
from convjit.backends import MLX_DTYPES, Call, Stretch
from convjit.backends.metal import MetalBackend
from convjit.kernel import Elementwise, Epilogue, Extra, Instruction, Result
from convjit.schedule import Schedule
from convjit.schedule.metal.chip import CHIPS
from convjit.schedule.metal.elementwise import MAX_ELEMENTS, Tile, elementwise, smaller


def pointwise(shape: tuple[int, ...], operands: Sequence[tuple[int, ...]], dtype: str = "f32") -> Elementwise:
    """The sum of n operands, each n-th of them n times; stored in `dtype`, and as it is."""
    write = Writer(*(dtype for _ in operands))
    terms = [write("arith.mulf", loaded(write, n), constant(write, n + 1.0)) for n in range(len(operands))]
    sums = terms[0]
    for term in terms[1:]:
        sums = write("arith.addf", sums, term)
    body = write.epilogue(stored(write, sums, dtype), sums)
    extras = tuple(Extra(operand, dtype) for operand in operands)
    return Elementwise(shape, extras, body, (Result(shape, dtype), Result(shape, "f32")))


def constant(write: Writer, value: float) -> int:
    return write("arith.constant", attribute=value)


@pytest.mark.parametrize("extent", [2, 3, 4, 7, 8, 9, 511, 512, 513, 1030, 4099])
@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
def test_one_long_row(extent: int, dtype: str) -> None:
    """Of fewer elements than a vector has, or as many, or some behind the last one; beside a scalar."""
    kernel = pointwise((extent,), [(extent,), (1,), (extent,)], dtype)
    check(kernel, chosen_for(kernel))
    check(kernel, by_tile(kernel, Tile(4, 128, 1, 3)))


@pytest.mark.parametrize("channels", [1, 4, 5])
def test_broadcasts_along_every_axis(channels: int) -> None:
    shape = (3, 2, 7, channels)
    masks = list(product([False, True], repeat=4))
    operands = [tuple(n if kept else 1 for n, kept in zip(shape, mask, strict=True)) for mask in masks]
    for some in (operands[::2], operands[1::2]):
        kernel = pointwise(shape, some)
        check(kernel, chosen_for(kernel))


def test_nothing_varies_along_the_outermost_axis() -> None:
    """How many rows there are is not told by any operand."""
    kernel = pointwise((300, 6), [(1, 6), (1, 1)])
    check(kernel, chosen_for(kernel))


def test_arrays_of_rank_0_and_views() -> None:
    kernel = pointwise((2, 5), [(1, 1), (2, 5)])
    stretch = Stretch(2, (Call(kernel, chosen_for(kernel), (0, 1), (2, 3)),), (3,))
    x = mx.arange(20.0).reshape(4, 5)
    (y,) = BACKEND.load(stretch)([mx.array(3.0), x[1:3]])
    np.testing.assert_array_equal(np.array(y), 3 + 2 * np.arange(5.0, 15.0).reshape(2, 5))


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_half_types_are_rounded_where_the_program_says_so(dtype: str) -> None:
    """Once at the store, and at each cast in between: exactly."""
    write = Writer(dtype, dtype)
    x, y = loaded(write, 0), loaded(write, 1)
    products = write("arith.mulf", x, y)
    kept = write("arith.addf", products, y)
    narrow = write("arith.extf", write("arith.truncf", products, type=dtype))
    body = write.epilogue(stored(write, kept, dtype), stored(write, write("arith.addf", narrow, y), dtype))
    extras, results = (Extra((9, 8), dtype), Extra((1, 8), dtype)), (Result((9, 8), dtype),) * 2
    kernel = Elementwise((9, 8), extras, body, results)
    a, b = numbers_for(kernel, 1)
    once, twice = simulate(kernel, chosen_for(kernel), [a, b])
    exact = round_to(round_to(a * b, "f32") + b, "f32")
    np.testing.assert_array_equal(once, round_to(exact, dtype))
    np.testing.assert_array_equal(twice, round_to(round_to(round_to(a * b, dtype) + b, "f32"), dtype))
    assert (once != twice).any()


SPECIAL = [0.0, -0.0, 1.0, -1.0, 1e-40, 3e38, np.inf, -np.inf, np.nan]


def test_nan_infinity_and_zeros_are_those_of_mlx() -> None:
    x, y = (a.ravel() for a in np.meshgrid(np.float32(SPECIAL), np.float32(SPECIAL)))
    write = Writer("f32", "f32")
    mask = write("arith.uitofp", write("arith.cmpf", 0, 1, type="i1", attribute="ogt"))
    quotient = write("arith.divf", 0, 1)
    body = write.epilogue(maximum(write, 0, 1), mask, quotient, write("arith.mulf", mask, 1))
    shape = x.shape
    kernel = Elementwise(shape, (Extra(shape, "f32"),) * 2, body, (Result(shape, "f32"),) * 4)
    a, b = mx.array(x), mx.array(y)
    theirs = [mx.maximum(a, b), (a > b).astype(mx.float32), a / b, (a > b).astype(mx.float32) * b]
    for got, want in zip(simulate(kernel, chosen_for(kernel), [x, y]), theirs, strict=True):
        np.testing.assert_array_equal(got, to_numpy(want))
        assert np.array_equal(np.signbit(got[got == 0]), np.signbit(to_numpy(want)[got == 0]))


def test_infinities_and_nan_stay_in_their_channel() -> None:
    kernel = total((400, 3, 16))
    x = np.ones(kernel.shape)
    x[17, 1, 2], x[30, 0, 5], x[31, 0, 5], x[399, 2, 9] = np.nan, np.inf, -np.inf, np.inf
    _, summed = simulate(kernel, chosen_for(kernel), [x])
    assert np.isnan(summed[[2, 5]]).all() and summed[9] == np.inf
    assert np.array_equal(np.delete(summed, [2, 5, 9]), np.full(13, 1200.0))


@pytest.mark.parametrize(("n", "channels"), [(1, 16), (400, 16), (1000, 3), (4000, 1), (300, 64)])
@pytest.mark.parametrize("least", [0.5, 1.5])
def test_long_sums_are_exact(n: int, channels: int, least: float) -> None:
    """Of positive numbers: no chain of additions is long, not even where every one of it rounds the same way, since all
    numbers of a channel are equal. Of up to 12,000 terms; also where more parts than threads are left."""
    kernel = total((n, 3, channels))
    x = round_to(np.random.default_rng(3).uniform(least, 1.5, kernel.shape), "f32")
    x[:] = x if least < 1.5 else round_to(np.random.default_rng(3).uniform(1, 2, kernel.shape[-1]), "f32")
    for tile in (Tile(1, 1, 128, 32), Tile(1, 1, 64, 1)):
        whole, summed = simulate(kernel, by_tile(kernel, tile), [x])
        assert np.array_equal(whole, x)
        np.testing.assert_allclose(summed, x.sum((0, 1)), rtol=1e-6)


def test_sums_among_other_results() -> None:
    """Their order is the kernel's, whatever dispatch they come from; a half sum is rounded once, its terms are not."""
    write = Writer("f16", "f32")
    x = loaded(write, 0)
    scaled = write("arith.mulf", x, 1)
    squared = write("arith.mulf", scaled, scaled)
    body = write.epilogue(
        stored(write, scaled, "f16"), scaled, squared, stored(write, squared, "f16"), stored(write, x, "bf16")
    )
    shape = (70, 9, 10)
    results = (
        Result((10,), "f16", True),
        Result(shape, "f32"),
        Result((1, 1, 10), "f32", True),
        Result(shape, "f16"),
        Result((10,), "bf16", True),
    )
    kernel = Elementwise(shape, (Extra(shape, "f16"), Extra((1, 1, 10), "f32")), body, results)
    a, s = numbers_for(kernel, 5)
    first, whole, second, halves, third = simulate(kernel, chosen_for(kernel), [a, s])
    product_ = round_to(a * s, "f32")
    np.testing.assert_array_equal(whole, product_)
    np.testing.assert_array_equal(halves, round_to(round_to(product_**2, "f32"), "f16"))
    assert second.shape == (1, 1, 10)
    np.testing.assert_allclose(second[0, 0], (product_**2).sum((0, 1)), rtol=1e-6)
    np.testing.assert_allclose(first, product_.sum((0, 1)), atol=2.0**-11 * np.abs(first).max())
    np.testing.assert_allclose(third, a.sum((0, 1)), atol=2.0**-8 * np.abs(third).max())


def test_only_sums() -> None:
    kernel = Elementwise(
        (50, 7), (Extra((50, 7), "f32"),), Epilogue(("f32",), (), (0,)), (Result((1, 7), "f32", True),)
    )
    check(replace_result(kernel, (7,)), chosen_for(kernel))


def replace_result(kernel: Elementwise, shape: tuple[int, ...]) -> Elementwise:
    return Elementwise(kernel.shape, kernel.operands, kernel.body, (Result(shape, "f32", True),))


# ---- The text, the schedule, and the backend around them.


def test_kernels_that_differ_in_rows_share_a_text() -> None:
    small = Tile(vector=1, lanes=8, groups=16, rows=1)

    def text(kernel: Elementwise) -> list[str]:
        return [one.text.body for one in BACKEND.dispatches(kernel, by_tile(kernel, small))]

    assert text(total((2, 5, 16))) == text(total((3, 5, 16))) == text(total((700, 5, 16)))
    assert text(total((2, 5, 17))) != text(total((2, 5, 16)))
    assert BACKEND.identity(total((2, 5, 16)), by_tile(total((2, 5, 16)), small)) == BACKEND.identity(
        total((90, 5, 16)), by_tile(total((90, 5, 16)), small)
    )


@pytest.mark.parametrize("shape", [(4096,), (64, 3, 20), (700, 16), (40, 9, 3)])
def test_every_element_is_read_and_written_once(shape: tuple[int, ...]) -> None:
    kernel = Elementwise(
        shape,
        (Extra(shape, "f32"), Extra(shape, "f16"), Extra((*(1,) * (len(shape) - 1), shape[-1]), "f32")),
        Epilogue(
            ("f32", "f16", "f32"),
            (
                Instruction("arith.extf", (1,), "f32"),
                Instruction("arith.mulf", (0, 3), "f32"),
                Instruction("arith.addf", (4, 2), "f32"),
            ),
            (5,),
        ),
        (Result(shape, "f32"),),
    )
    arrays = [mx.ones(o.shape, MLX_DTYPES[o.dtype]) for o in kernel.operands]
    (counters,) = BACKEND.examine(BACKEND.dispatches(kernel, chosen_for(kernel)), arrays).counters
    elements = prod(shape)
    of_columns = 4 * (elements + 128 * shape[-1])  # at most: once for all rows of a thread
    assert counters.device_bytes_written == 4 * elements
    assert 6 * elements <= counters.device_bytes_read <= 6 * elements + of_columns


@pytest.mark.parametrize("chip", ["M1", "M3 Max", "M5"])
@pytest.mark.parametrize("channels", [1, 2, 3, 16, 33, 64, 100, 132, 1000, 2048])
def test_schedules_leave_few_threads_idle(chip: str, channels: int) -> None:
    kernel = total((32, 56 * 56, channels))
    tile = Tile.of(elementwise(kernel, CHIPS[chip]), is_flat=False)
    columns = -(-channels // tile.columns) * tile.columns
    assert tile.lanes * tile.groups == 128 and channels / columns > 0.7
    assert 1 <= tile.rows <= 32 and channels % tile.vector == 0


def test_small_kernels_are_shared_by_more_threads() -> None:
    rows = [Tile.of(chosen_for(total((n, 16))), is_flat=False).rows for n in (10, 5_000, 50_000, 5_000_000)]
    assert rows == sorted(rows) and rows[0] == 1 and rows[-1] == 32


def test_what_stands_in_for_a_kernel_that_failed() -> None:
    for kernel in (total((9, 3, 8)), pointwise((30,), [(30,)])):
        other = smaller(kernel, chosen_for(kernel))
        assert other is not None and other.number("vector") == 1 and smaller(kernel, other) is None
        check(kernel, other)


def test_what_metal_cannot_take_is_said() -> None:
    many = pointwise((9,), [(9,)] * 29)
    assert BACKEND.schedule(many) == "needs 32 buffers; a Metal kernel has 31"
    assert isinstance(BACKEND.schedule(pointwise((9,), [(9,)] * 28)), Schedule)
    huge = pointwise((MAX_ELEMENTS + 1,), [(1,)])
    assert BACKEND.schedule(huge) == f"{MAX_ELEMENTS + 1} elements are too many for a Metal kernel"
    odd = Epilogue(("f32",), (Instruction("math.atan", (0,), "f32"),), (1,))
    shape = (Extra((4,), "f32"),), odd, (Result((4,), "f32"),)
    assert BACKEND.schedule(Elementwise((4,), *shape)) == "cannot write math.atan in Metal"


def test_metal_runner_can_be_traced() -> None:
    """Anywhere: only evaluating a result needs a Metal device."""
    kernel = total((6, 5, 16))
    stretch = Stretch(1, (Call(kernel, chosen_for(kernel), (0,), (1, 2)),), (2, 1))
    run = MetalBackend().load(stretch)
    trace = simulator.capture(lambda *a: run(a), mx.zeros(kernel.shape))
    first, second = trace.launches
    assert trace.outputs == (second.outputs[0][0], first.outputs[0][0])
