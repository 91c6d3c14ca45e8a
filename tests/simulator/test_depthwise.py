"""The depthwise Metal kernel: its text, run on the host, against float64."""

from __future__ import annotations

import random
from dataclasses import replace
from math import prod

import mlx.core as mx
import numpy as np
import pytest
import reference
from kernels import BACKEND, bias_silu, check, count, random_array, random_kernel, simulate, to_numpy

from benchmarks.problems import problems, shrink
from convjit.geometry import Geometry, GeometryError, Window, plain_window
from convjit.kernel import DTYPES, Extra, Kernel, identity_epilogue
from convjit.schedule import Schedule
from convjit.schedule.metal.chip import CHIPS, DEFAULT, Chip
from convjit.schedule.metal.depthwise import Patch, axes_of, depthwise

NAMES = [
    *("mbv2_dw_s1", "mbv2_dw_s2", "mbv2_dw_7", "mbv3_dw_5x5", "convnext_dw7", "replk_dw31", "dw_mult2"),
    *("conformer_dw31", "mamba_causal_dw4", "dw_T1d", "x3d_dw3d"),
]
PROBLEMS = {p.name: p.geometry for p in problems() if p.name in NAMES}


def random_geometry(choose: random.Random) -> Geometry:
    while True:
        rank = choose.choice((1, 2, 2, 3))
        size = {1: 40, 2: 12, 3: 5}[rank]

        def each(low: int, high: int, n: int = rank) -> tuple[int, ...]:
            return tuple(choose.randint(low, high) for _ in range(n))

        channels, transposed = choose.choice((1, 2, 3, 4, 6, 8, 33)), choose.random() < 0.3
        window = Window(
            strides=each(1, 3) if not transposed or choose.random() < 0.3 else (1,) * rank,
            pad_lo=each(-1, 3),
            pad_hi=each(-1, 3),
            kernel_dilation=each(1, 3) if choose.random() < 0.4 else (1,) * rank,
            input_dilation=each(1, 3) if transposed else (1,) * rank,
            groups=channels,
            flip=transposed or choose.random() < 0.1,
        )
        kernel = each(1, {1: 9, 2: 5, 3: 3}[rank])
        try:
            geometry = Geometry.of_shapes(
                (choose.choice((1, 2)), *each(1, size), channels),
                (channels * choose.choice((1, 1, 2, 3, 4)), *kernel, 1),
                window,
            )
        except GeometryError:
            continue
        if min(axis.taps for axis in axes_of(Kernel(geometry, "f32", (), identity_epilogue("f32"), ("f32",)))):
            return geometry


def bare(geometry: Geometry, dtype: str = "f32") -> Kernel:
    return Kernel(geometry, dtype, (), identity_epilogue(dtype), (dtype,))


def first(kernel: Kernel, rolling: int) -> Schedule:
    """The best schedule of this kind."""
    return next(s for s in depthwise(kernel, DEFAULT, 100) if s["rolling"] == rolling)


@pytest.mark.parametrize("seed", range(36))
def test_random_geometries(seed: int) -> None:
    """Any of the schedules, for a chip that wants few threads or many."""
    choose = random.Random(seed)
    kernel = random_kernel(choose, random_geometry(choose))
    chip = replace(DEFAULT, cores=choose.choice((0.01, 0.1, 1)))
    check(kernel, choose.choice(depthwise(kernel, chip, 100)), seed)


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("name", NAMES)
def test_problems(name: str, dtype: str) -> None:
    geometry = shrink(PROBLEMS[name])
    bias = Extra((*(1,) * (len(geometry.out_shape) - 1), geometry.out_channels), dtype)
    kernel = Kernel(geometry, dtype, (bias,), bias_silu(dtype), (dtype,))
    check(kernel, *depthwise(kernel, DEFAULT))


@pytest.mark.parametrize("rolling", [0, 1])
def test_nan_and_infinity_stay_where_they_are(rolling: int) -> None:
    """In the corners, whose outputs have taps in the padding, and in the middle."""
    kernel = bare(Geometry.of_shapes((1, 9, 9, 2), (2, 3, 3, 1), Window((1, 1), (1, 1), (1, 1), (1, 1), (1, 1), 2)))
    x, w = np.ones(kernel.geometry.in_shape, np.float32), np.ones(kernel.geometry.weight_shape, np.float32)
    x[0, 0, 0, 0], x[0, 8, 8, 1], x[0, 4, 4, 0] = np.nan, np.inf, np.inf
    (y,) = simulate(kernel, first(kernel, rolling), mx.array(x), mx.array(w), [])
    np.testing.assert_array_equal(y, reference.convolution(kernel.geometry, x, w))
    assert (np.isnan(y).sum(), np.isinf(y).sum()) == (4, 4 + 9)


def test_views_of_any_offset() -> None:
    """Pairs of channels are read where they are not aligned as pairs: a row-contiguous view behind one element."""
    kernel = bare(Geometry.of_shapes((1, 6, 6, 4), (4, 3, 3, 1), plain_window(2, groups=4)), "f16")
    schedule = next(s for s in depthwise(kernel, DEFAULT, 100) if s["channels"] == 2)
    whole, w = random_array(0, (145,), "f16"), random_array(1, kernel.geometry.weight_shape, "f16")
    x = whole[1:].reshape(kernel.geometry.in_shape)
    (y,) = simulate(kernel, schedule, x, w, [])
    exact = reference.convolution(kernel.geometry, to_numpy(x), to_numpy(w))
    np.testing.assert_allclose(y, exact, atol=2e-3 * np.abs(exact).max())


def test_long_sums_are_made_of_partial_ones() -> None:
    """Equal numbers make the rounding of one long chain grow, that of partial sums hardly."""
    kernel = bare(Geometry.of_shapes((1, 20_000, 2), (2, 19_990, 1), plain_window(1, groups=2)))
    (schedule,) = depthwise(kernel, DEFAULT)
    x, w = mx.full(kernel.geometry.in_shape, 1.1), mx.full(kernel.geometry.weight_shape, 0.7)
    (y,) = simulate(kernel, schedule, x, w, [])
    assert np.abs(y / (19_990 * np.float64(np.float32(1.1)) * np.float64(np.float32(0.7))) - 1).max() < 1e-5


def test_text_does_not_depend_on_the_batch() -> None:
    texts: set[str] = set()
    for batch in (1, 2, 7):
        geometry = Geometry.of_shapes((batch, 8, 8, 8), (8, 3, 3, 1), plain_window(2, groups=8))
        kernel = Kernel(geometry, "f32", (Extra((1, 1, 1, 8), "f32"),), bias_silu("f32"), ("f32",))
        texts.add(BACKEND.source(kernel, Schedule("metal/depthwise.metal", Patch(2, 2, 3, 0, 3, 4, 32).choices())))
    assert len(texts) == 1


def test_indices_are_64_bit_only_where_sizes_need_it() -> None:
    for width, index in ((1 << 20, "int"), (1 << 28, "long")):
        kernel = bare(Geometry.of_shapes((1, width, 8), (8, 3, 1), plain_window(1, groups=8)))
        assert f"const {index} from_w" in BACKEND.source(kernel, *depthwise(kernel, DEFAULT))


@pytest.mark.parametrize(
    ("x", "w", "window"),
    [
        ((1, 8, 8, 4), (8, 3, 3, 2), plain_window(2, groups=2)),
        ((1, 9, 1), (1, 200, 1), Window((1,), (199,), (199,), (1,), (100,), flip=True)),
        ((1, 4, 2), (2, 1, 1), Window((2,), (1,), (2,), (1,), (2,), 2)),
    ],
    ids=["C / groups is 2", "100 phases", "no tap meets an input"],
)
def test_what_it_leaves_to_others(x: tuple[int, ...], w: tuple[int, ...], window: Window) -> None:
    assert depthwise(bare(Geometry.of_shapes(x, w, window)), DEFAULT) == []


@pytest.mark.parametrize("name", NAMES)
def test_patches_fit_the_chip(name: str) -> None:
    """Larger chips get smaller patches; what a batch adds, larger ones."""
    geometry = PROBLEMS[name]

    def outputs(chip: Chip, batch: int) -> int:
        (schedule,) = depthwise(bare(replace(geometry, batch=batch)), chip)
        patch = Patch.of(schedule)
        return patch.channels * patch.rows * patch.columns

    assert outputs(CHIPS["M2 Ultra"], 1) <= outputs(CHIPS["M1"], 1)
    assert outputs(DEFAULT, 1) <= outputs(DEFAULT, 32)


@pytest.mark.parametrize("dtype", ["f32", "f16"])
@pytest.mark.parametrize(("name", "reads"), [("mbv2_dw_s1", 1.9), ("mbv2_dw_s2", 1.3), ("dw_mult2", 2.0)])
def test_input_is_read_less_than_twice(name: str, dtype: str, reads: float) -> None:
    """Where there is work enough to keep a chip busy with large patches."""
    kernel = bare(replace(shrink(PROBLEMS[name]), batch=1), dtype)
    schedule = depthwise(kernel, replace(DEFAULT, cores=1))[0]
    g = kernel.geometry
    (counters,) = count(kernel, schedule)
    assert counters.device_bytes_read <= reads * prod(g.in_shape) * DTYPES[dtype]
    assert counters.device_bytes_written == prod(g.out_shape) * DTYPES[dtype]


@pytest.mark.parametrize("rolling", [0, 1])
@pytest.mark.parametrize("kernel_size", [3, 4])
def test_transposed_multiplies_only_taps_that_hit(kernel_size: int, rolling: int) -> None:
    window = Window((1, 1), (2, 2), (2, 2), (1, 1), (2, 2), 32, flip=True)
    kernel = bare(Geometry.of_shapes((1, 16, 16, 32), (32, kernel_size, kernel_size, 1), window))
    g, schedule = kernel.geometry, first(kernel, rolling)
    (counters,) = count(kernel, schedule)
    assert counters.fma_operations <= g.flops // 2 / 0.85
