"""Winograd on Metal: the code of its transforms, the kernels against float64, and how far errors and infinities go."""

from __future__ import annotations

import random
import re
from math import prod

import mlx.core as mx
import numpy as np
import pytest
import reference
from kernels import BACKEND, bias_silu, check, count, random_array, residual_gate, simulate, to_numpy

from convjit.bilinear import POINTS, algorithm
from convjit.emit.straight_line import Arithmetic, product
from convjit.geometry import Geometry, Window
from convjit.kernel import Extra, Kernel, identity_epilogue
from convjit.schedule import Schedule
from convjit.schedule.metal.chip import CHIPS, DEFAULT
from convjit.schedule.metal.gemm import gemm
from convjit.schedule.metal.winograd import Winograd, winograd


def square(x: tuple[int, ...], filters: int, kernel: tuple[int, ...], pad: tuple[int, ...] = ()) -> Geometry:
    """Stride 1, no dilation; `pad` on both sides, by default so that the output is as large as the input."""
    rank = len(kernel)
    pad = pad or tuple(k // 2 for k in kernel)
    window = Window((1,) * rank, pad, pad, (1,) * rank, (1,) * rank)
    return Geometry.of_shapes(x, (filters, *kernel, x[-1]), window)


def bare(geometry: Geometry, dtype: str = "f32") -> Kernel:
    return Kernel(geometry, dtype, (), identity_epilogue(dtype), (dtype,))


def first(kernel: Kernel, tile: int) -> Schedule:
    return winograd(kernel, DEFAULT, tile)[0]


# ---- The transforms.

ARITHMETIC = Arithmetic(repr, "fma({0}, {1}, {2})")


@pytest.mark.parametrize("tile", POINTS)
@pytest.mark.parametrize("which", ["inputs", "outputs"])
def test_straight_lines_compute_the_product(tile: int, which: str) -> None:
    matrix = getattr(algorithm(tile), which)
    code = product(matrix, [f"x{j}" for j in range(len(matrix[0]))], ARITHMETIC)
    for j in range(len(matrix[0])):
        values = {f"x{n}": float(n == j) for n in range(len(matrix[0]))}
        for line in code.lines:
            name, expression = line.split(" = ")
            values[name] = eval(expression, {"fma": lambda a, b, c: a * b + c}, values)
        assert [values[r] for r in code.results] == [float(row[j]) for row in matrix]


@pytest.mark.parametrize(("which", "multiplications", "additions"), [("inputs", 10, 4), ("outputs", 6, 6)])
def test_straight_lines_share_sums(which: str, multiplications: int, additions: int) -> None:
    """The matrices of F(4, 3) have 22 and 18 elements that are not zero."""
    text = "\n".join(product(getattr(algorithm(4), which), [f"x{j}" for j in range(6)], ARITHMETIC).lines)
    assert text.count("fma") + text.count("*") == multiplications
    assert text.count(" + ") + text.count(" - ") == additions
    assert not {0.0, 1.0, -1.0} & set(map(float, re.findall(r"-?\d+\.\d+", text)))


# ---- The kernels.


def random_winograd(seed: int) -> tuple[Kernel, int]:
    """A kernel with three taps along one or two axes, and a tile."""
    choose = random.Random(seed)
    rank = choose.choice((1, 2, 2, 2, 3))
    kernel = tuple(3 if axis >= rank - 2 else choose.randint(1, 3) for axis in range(rank))
    if rank == 2 and choose.random() < 0.3:
        kernel = choose.choice(((1, 3), (3, 1), (3, 5), (2, 3)))
    size = {1: 40, 2: 13, 3: 5}[rank]
    window = Window(
        strides=tuple(1 if k == 3 else choose.randint(1, 2) for k in kernel),
        pad_lo=tuple(choose.randint(-1, 3) for _ in kernel),
        pad_hi=tuple(choose.randint(0, 3) for _ in kernel),
        kernel_dilation=(1,) * rank,
        input_dilation=(1,) * rank,
        flip=choose.random() < 0.2,
    )
    in_size = tuple(choose.randint(6, size) if rank < 3 else choose.randint(4, size) for _ in kernel)
    channels, filters = choose.choice((1, 3, 8, 19, 33, 64)), choose.choice((1, 5, 16, 31, 40, 72))
    geometry = Geometry.of_shapes(
        (choose.choice((1, 1, 2, 3)), *in_size, channels), (filters, *kernel, channels), window
    )
    dtype, tile = choose.choice((("f32", 2), ("f32", 4), ("f32", 4), ("f16", 2), ("bf16", 2)))
    out = geometry.out_shape

    def broadcast() -> tuple[int, ...]:
        return tuple(n if choose.random() < 0.5 else 1 for n in out)

    match choose.randrange(3):
        case 0:
            return bare(geometry, dtype), tile
        case 1:
            bias = Extra((*(1,) * (len(out) - 1), out[-1]), dtype)
            return Kernel(geometry, dtype, (bias,), bias_silu(dtype), (dtype,)), tile
        case _:
            extras = (Extra(choose.choice((out, broadcast())), dtype), Extra(broadcast(), "f32"))
            return Kernel(geometry, "f32", extras, residual_gate(dtype), (dtype, "f32")), tile


@pytest.mark.parametrize("seed", range(16))
def test_random_kernels(seed: int) -> None:
    kernel, tile = random_winograd(seed)
    schedules = winograd(kernel, random.Random(seed).choice(list(CHIPS.values())), tile, 8)
    check(kernel, schedules[seed % 8], seed)


def test_fewer_matrix_operations_for_about_the_same_bytes() -> None:
    kernel = bare(square((1, 28, 28, 64), 64, (3, 3)))
    (direct,) = gemm(kernel, DEFAULT)
    ours, theirs = count(kernel, first(kernel, 4)), count(kernel, direct)
    assert sum(c.mma_operations for c in ours) < 0.3 * sum(c.mma_operations for c in theirs)
    moved = [sum(c.device_bytes_read + c.device_bytes_written for c in counts) for counts in (ours, theirs)]
    assert moved[0] < 1.2 * moved[1]


@pytest.mark.parametrize("tile", POINTS)
@pytest.mark.parametrize(
    "geometry",
    [
        square((1, 1, 2, 1), 1, (3, 3)),
        square((2, 5, 3, 2), 3, (3, 3), (2, 2)),
        square((1, 3, 1), 2, (3,)),
        square((1, 7, 1, 7), 9, (3, 1)),
        square((2, 2, 2, 2, 3), 5, (3, 3, 3)),
    ],
)
def test_tiny_inputs(geometry: Geometry, tile: int) -> None:
    """Arrays of fewer than 8 elements come in another address space; tiles are larger than the output."""
    bias = Extra((*(1,) * (geometry.rank + 1), geometry.out_channels), "f32")
    kernel = Kernel(geometry, "f32", (bias,), bias_silu("f32"), ("f32",))
    check(kernel, first(kernel, tile))


def test_images_share_blocks() -> None:
    """Four tiles an image: a block of matrices holds those of several images."""
    kernel = bare(square((5, 7, 7, 16), 24, (3, 3)))
    schedule = first(kernel, 4)
    plan = Winograd.of(kernel.geometry, schedule)
    assert plan.block_m > prod(plan.tile_counts) == 4
    check(kernel, schedule)


def errors(dtype: str, tile: int, channels: int) -> tuple[float, float]:
    """The largest error relative to the largest result, and relative to the sum of absolute products."""
    geometry = square((1, 12, 12, channels), 8, (3, 3))
    kernel = bare(geometry, dtype)
    x, w = random_array(0, geometry.in_shape, dtype), random_array(1, geometry.weight_shape, dtype)
    (y,) = simulate(kernel, first(kernel, tile), x, w, [])
    exact = reference.convolution(geometry, to_numpy(x), to_numpy(w))
    error = np.abs(y - exact)
    return error.max() / np.abs(exact).max(), (error / reference.magnitude(kernel, to_numpy(x), to_numpy(w))).max()


@pytest.mark.parametrize(
    ("dtype", "tile", "largest", "elementwise"),
    [("f32", 2, 1e-6, 2e-7), ("f32", 4, 4e-6, 8e-7), ("f16", 2, 1.2e-3, 6e-4), ("bf16", 2, 9e-3, 5e-3)],
)
@pytest.mark.parametrize("channels", [16, 256])
def test_accuracy(dtype: str, tile: int, largest: float, elementwise: float, channels: int) -> None:
    """Twice what was measured, or less: F4 in float32 errs about three times as much as F2, which is like direct."""
    relative, by_element = errors(dtype, tile, channels)
    assert relative < largest
    assert by_element < elementwise


def test_float16_transforms_do_not_overflow() -> None:
    geometry = square((1, 6, 6, 8), 8, (3, 3))
    kernel = bare(geometry, "f16")
    signs = np.where(np.indices((6, 6)).sum(0) // 2 % 2, -1, 1)[None, :, :, None]
    x = mx.array(np.broadcast_to(signs * 60000.0, geometry.in_shape)).astype(mx.float16)
    w = mx.full(geometry.weight_shape, 0.01).astype(mx.float16)
    (y,) = simulate(kernel, first(kernel, 2), x, w, [])
    exact = reference.convolution(geometry, to_numpy(x), to_numpy(w))
    assert np.abs(y - exact).max() < 2e-3 * 60000


@pytest.mark.parametrize(("tile", "least", "most"), [(2, 9, 9), (4, 16, 25)])
def test_how_many_pixels_an_infinity_spoils(tile: int, least: int, most: int) -> None:
    """F2 spoils the 9 that a direct convolution does; F4 all of a tile, and, from its border, a row of the next."""
    geometry = square((tile * tile, 12, 12, 8), 8, (3, 3))
    kernel = bare(geometry)
    x, w = np.array(random_array(0, geometry.in_shape, "f32")), random_array(1, geometry.weight_shape, "f32")
    exact = reference.convolution(geometry, x, np.array(w))
    for image in range(tile * tile):  # each has it somewhere else
        x[image, 4 + image // tile, 4 + image % tile, 3] = np.inf
    (y,) = simulate(kernel, first(kernel, tile), mx.array(x), w, [])
    bad = ~np.isfinite(y)
    counts = bad.any(3).sum((1, 2))
    assert (counts.min(), counts.max()) == (least, most)
    np.testing.assert_allclose(y[~bad], exact[~bad], rtol=0, atol=1e-4)


# ---- The schedules.


def test_what_winograd_does_not_take() -> None:
    plain = square((1, 16, 16, 32), 32, (3, 3))
    dilated = Geometry.of_shapes((1, 16, 16, 32), (32, 3, 3, 32), Window((1, 1), (2, 2), (2, 2), (2, 2), (1, 1)))
    strided = Geometry.of_shapes((1, 16, 16, 32), (32, 3, 3, 32), Window((2, 2), (1, 1), (1, 1), (1, 1), (1, 1)))
    grouped = Geometry.of_shapes((1, 16, 16, 32), (32, 3, 3, 16), Window((1, 1), (1, 1), (1, 1), (1, 1), (1, 1), 2))
    transposed = Geometry.of_shapes((1, 8, 8, 32), (32, 3, 3, 32), Window((1, 1), (1, 1), (1, 1), (1, 1), (2, 2)))
    deep = square((1, 8, 8, 8192), 32, (3, 3))
    for geometry in (dilated, strided, grouped, transposed, deep, square((1, 16, 16, 32), 32, (5, 5))):
        assert winograd(bare(geometry), DEFAULT, 2) == winograd(bare(geometry), DEFAULT, 4) == []
    assert winograd(bare(plain, "f16"), DEFAULT, 4) == []
    assert winograd(Kernel(plain, "f16", (), identity_epilogue("f32"), ("f32",)), DEFAULT, 2) == []
    assert winograd(bare(plain, "f16"), DEFAULT, 2) and winograd(bare(plain), DEFAULT, 4)


def test_it_is_not_chosen_by_default() -> None:
    schedule = BACKEND.schedule(bare(square((1, 56, 56, 256), 256, (3, 3))))
    assert isinstance(schedule, Schedule) and "winograd" not in schedule.template


def test_texts_do_not_depend_on_the_batch() -> None:
    def source(batch: int) -> str:
        kernel = bare(square((batch, 8, 8, 8), 8, (3, 3)))
        return BACKEND.source(
            kernel, Schedule("metal/winograd", first(bare(square((1, 8, 8, 8), 8, (3, 3))), 2).choices)
        )

    assert source(1) == source(2) == source(7)


@pytest.mark.parametrize("tile", POINTS)
def test_issued_multiply_adds(tile: int) -> None:
    """Of a layer of ResNet-50: 36 / 16 and 16 / 4 multiplications a pixel instead of 9, and little for padding."""
    geometry = square((1, 28, 28, 128), 128, (3, 3))
    plan = Winograd.of(geometry, first(bare(geometry), tile))
    assert plan.multiply_adds * 2 / geometry.flops < {2: 16 / 36, 4: 36 / 144}[tile] * 1.3
