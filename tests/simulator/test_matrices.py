"""The Metal kernels on simdgroup matrices (gemm, stem, gather): their text, run on the host, against float64."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from itertools import cycle

import mlx.core as mx
import numpy as np
import pytest
import reference
from kernels import BACKEND, TOLERANCE, bias_silu, check, efficiency, random_geometry, random_kernel, simulate

from convjit.geometry import Geometry, Window, plain_window
from convjit.kernel import Extra, Kernel, identity_epilogue
from convjit.schedule import Schedule
from convjit.schedule.metal import candidates, choose, smaller
from convjit.schedule.metal.chip import CHIPS, DEFAULT, Chip
from convjit.schedule.metal.gemm import THREADGROUP_BYTES, gather, gemm, stem
from convjit.schedule.metal.tile import Tile, Tiling, foldable

Maker = Callable[[Kernel, Chip, int], list[Schedule]]


def window(rank: int, **changes: object) -> Window:
    return replace(plain_window(rank), **changes)


def with_channels(geometry: Geometry, group_channels: int, group_filters: int, groups: int) -> Geometry:
    return replace(
        geometry,
        in_channels=groups * group_channels,
        out_channels=groups * group_filters,
        window=replace(geometry.window, groups=groups),
    )


def random_case(seed: int, make: Maker, channels: tuple[int, ...], groups: tuple[int, ...]) -> None:
    """Two schedules, any of those that are legal, of one random kernel."""
    choose_ = random.Random(seed)
    geometry = random_geometry(choose_)
    filters = choose_.choice((1, 3, 8, 10, 16, 17, 40))
    geometry = with_channels(geometry, choose_.choice(channels), filters, choose_.choice(groups))
    kernel = random_kernel(choose_, geometry)
    schedules = make(kernel, DEFAULT, 40)
    for schedule in choose_.sample(schedules, min(2, len(schedules))):
        check(kernel, schedule, seed)


@pytest.mark.parametrize("seed", range(16))
def test_gemm_of_random_geometries(seed: int) -> None:
    random_case(seed, gemm, (8, 9, 12, 16, 20, 33), (1, 1, 2, 3))


@pytest.mark.parametrize("seed", range(12))
def test_gather_of_random_geometries(seed: int) -> None:
    random_case(seed, gather, (8, 9, 12, 16, 20, 33), (1, 1, 2, 3))


@pytest.mark.parametrize("seed", range(12))
def test_stem_of_random_geometries(seed: int) -> None:
    random_case(seed, stem, (1, 2, 3, 4, 7), (1,))


def test_templates_refuse_what_they_cannot_take() -> None:
    few = Geometry.of_shapes((1, 9, 9, 4), (8, 3, 3, 4), plain_window(2))
    transposed = Geometry.of_shapes((1, 9, 9, 4), (8, 3, 3, 4), window(2, input_dilation=(2, 2), flip=True))
    kernel = Kernel(few, "f32", (), identity_epilogue("f32"), ("f32",))
    assert gemm(kernel, DEFAULT) == gather(kernel, DEFAULT) == []
    assert stem(replace(kernel, geometry=transposed), DEFAULT) == []
    assert choose(replace(kernel, geometry=transposed), DEFAULT).template == "metal/direct.metal"


@pytest.mark.parametrize(
    ("x", "w", "strides", "axes"),
    [
        ((2, 16, 16, 3), (24, 4, 4, 3), (4, 4), 1),
        ((70, 2, 4, 4, 3), (24, 2, 4, 4, 3), (2, 4, 4), 3),
        ((3, 64, 2), (9, 8, 2), (8,), 1),
        ((2, 6, 4, 3), (8, 6, 4, 3), (6, 4), 2),
    ],
)
def test_patch_embeddings_are_matrix_products(
    x: tuple[int, ...], w: tuple[int, ...], strides: tuple[int, ...], axes: int
) -> None:
    geometry = Geometry.of_shapes(x, w, window(len(strides), strides=strides))
    extra = Extra((*(1,) * (len(x) - 1), w[0]), "f16")
    kernel = Kernel(geometry, "f16", (extra,), bias_silu("f16"), ("f16",))
    assert foldable(kernel) == axes
    for schedule in gemm(kernel, DEFAULT, 3):
        check(kernel, schedule)


@pytest.mark.parametrize(
    "changes",
    [
        {"strides": (3, 4)},
        {"strides": (4, 4), "pad_lo": (0, 1)},
        {"strides": (4, 4), "kernel_dilation": (1, 2)},
        {"strides": (4, 3)},
    ],
)
def test_other_windows_are_not_folded(changes: dict[str, tuple[int, int]]) -> None:
    geometry = Geometry.of_shapes((1, 16, 16, 3), (8, 4, 4, 3), window(2, **changes))
    expected = 1 if changes == {"strides": (3, 4)} else 0
    assert foldable(Kernel(geometry, "f32", (), identity_epilogue("f32"), ("f32",))) == expected


def test_deep_sums_are_split_and_added_up() -> None:
    geometry = Geometry.of_shapes((2, 4, 4, 512), (16, 3, 3, 512), window(2, pad_lo=(1, 1), pad_hi=(1, 1)))
    extras = (Extra((1, 1, 1, 16), "f16"),)
    kernel = Kernel(geometry, "f16", extras, bias_silu("f16"), ("f16",))
    split = [s for s in gemm(kernel, DEFAULT, 40) if s.number("parts") > 1]
    assert choose(kernel, DEFAULT).number("parts") > 1
    check(kernel, split[0])
    assert BACKEND.source(kernel, split[0]).count("[[kernel]]") == 2


def test_very_long_sums_are_always_split() -> None:
    geometry = Geometry.of_shapes((1, 70, 70, 2048), (64, 3, 3, 2048), plain_window(2))
    kernel = Kernel(geometry, "f32", (), identity_epilogue("f32"), ("f32",))
    assert all(s.number("parts") >= 2 for s in gemm(kernel, DEFAULT, 10))


@pytest.mark.parametrize("template", [gemm, gather])
def test_nan_and_infinity_stay_where_they_are(template: Maker) -> None:
    """Rows and channels that only fill up a matrix must not spread them."""
    geometry = Geometry.of_shapes((1, 9, 9, 9), (4, 3, 3, 9), plain_window(2))
    nan_and_infinity_stay(geometry, template)


def test_nan_and_infinity_stay_where_they_are_in_a_stem() -> None:
    nan_and_infinity_stay(Geometry.of_shapes((1, 9, 9, 3), (4, 3, 3, 3), plain_window(2)), stem)


def nan_and_infinity_stay(geometry: Geometry, template: Maker) -> None:
    kernel = Kernel(geometry, "f32", (), identity_epilogue("f32"), ("f32",))
    x, w = np.ones(geometry.in_shape, np.float32), np.ones(geometry.weight_shape, np.float32)
    x[0, 0, 0, 0], x[0, 8, 8, 1] = np.nan, np.inf
    for schedule in template(kernel, DEFAULT, 3):
        (y,) = simulate(kernel, schedule, mx.array(x), mx.array(w), [])
        np.testing.assert_array_equal(y, reference.convolution(geometry, x, w))
        assert np.isnan(y).sum() == np.isinf(y).sum() == 4


def test_phases_without_taps_are_the_epilogue_of_zero() -> None:
    """Stride 3, kernel 2: every third output meets nothing but the bias."""
    geometry = Geometry.of_shapes((1, 7, 8), (8, 2, 8), window(1, input_dilation=(3,), flip=True))
    geometry = replace(geometry, window=replace(geometry.window, pad_hi=(1,), pad_lo=(1,)))
    kernel = Kernel(geometry, "f32", (Extra((1, 1, 8), "f32"),), bias_silu("f32"), ("f32",))
    for schedule in gemm(kernel, DEFAULT, 4):
        check(kernel, schedule)


def test_text_does_not_depend_on_the_batch() -> None:
    def source(batch: int) -> str:
        geometry = Geometry.of_shapes((batch, 8, 8, 16), (8, 3, 3, 16), plain_window(2))
        kernel = Kernel(geometry, "f32", (Extra((1, 1, 1, 8), "f32"),), bias_silu("f32"), ("f32",))
        return BACKEND.source(kernel, several)

    geometry = Geometry.of_shapes((8, 8, 8, 16), (8, 3, 3, 16), plain_window(2))
    several = next(
        s
        for s in gemm(Kernel(geometry, "f32", (), identity_epilogue("f32"), ("f32",)), DEFAULT, 40)
        if s.number("images") > 1
    )
    assert source(1) == source(2) == source(7)


def test_indices_are_64_bit_only_where_sizes_need_it() -> None:
    def source(width: int) -> str:
        geometry = Geometry.of_shapes((1, width, 8), (8, 3, 8), plain_window(1))
        kernel = Kernel(geometry, "f32", (), identity_epilogue("f32"), ("f32",))
        return BACKEND.source(kernel, gemm(kernel, DEFAULT)[0])

    assert "const int in_w" in source(1 << 20)
    assert "const long in_w" in source(1 << 28)


@pytest.mark.parametrize("chip", CHIPS.values(), ids=lambda chip: chip.name)
def test_schedules_obey_the_limits_on_every_chip(chip: Chip) -> None:
    """Threadgroup memory, threads, and little padding in large matrices."""
    layers = [((8, 56, 56, 64), 64), ((1, 14, 14, 256), 256), ((4, 32, 32, 370), 370), ((1, 7, 7, 512), 512)]
    for (shape, filters), dtype in zip(layers, cycle(TOLERANCE), strict=False):
        geometry = Geometry.of_shapes(shape, (filters, 3, 3, shape[-1]), window(2, pad_lo=(1, 1), pad_hi=(1, 1)))
        kernel = Kernel(geometry, dtype, (), identity_epilogue(dtype), (dtype,))
        for schedule in candidates(kernel, chip):
            if schedule.template in ("metal/gemm.metal", "metal/gather.metal"):
                assert 64 <= Tile.of(schedule).threads <= 256
                bytes_held = Tiling.of(kernel, schedule).threadgroup_bytes
                assert bytes_held <= THREADGROUP_BYTES or "gather" in schedule.template
        assert efficiency(kernel, choose(kernel, chip)) >= 0.85


def test_a_smaller_schedule_ends_at_the_direct_kernel() -> None:
    geometry = Geometry.of_shapes((8, 56, 56, 64), (64, 3, 3, 64), plain_window(2))
    kernel = Kernel(geometry, "f32", (), identity_epilogue("f32"), ("f32",))
    schedule: Schedule | None = choose(kernel, DEFAULT)
    seen: list[Schedule] = []
    while schedule is not None:
        seen.append(schedule)
        schedule = smaller(kernel, schedule, DEFAULT)
    assert 3 <= len(seen) == len(set(seen))
    assert seen[-1].template == "metal/direct.metal"


def test_axes_of_extent_1_are_folded_over() -> None:
    """A window of (4, 1) on a column: the axis that becomes channels is not the last one."""
    geometry = Geometry.of_shapes((1, 8, 1, 63), (2, 4, 1, 63), window(2, strides=(4, 1)))
    kernel = Kernel(geometry, "f32", (), identity_epilogue("f32"), ("f32",))
    assert foldable(kernel) == 1
    for schedule in gemm(kernel, DEFAULT, 3):
        check(kernel, schedule)


def test_parts_of_a_kernel_whose_extra_varies_along_one_axis() -> None:
    """The kernel of the parts has no extras, and still must not walk height and width as one."""
    geometry = Geometry.of_shapes((3, 2, 4, 61), (7, 1, 2, 61), window(2, strides=(1, 2)))
    kernel = Kernel(geometry, "f32", (Extra((1, 1, 2, 1), "f32"),), bias_silu("f32"), ("f32",))
    split = [s for s in gemm(kernel, DEFAULT, 40) if s.number("parts") > 1]
    check(kernel, split[0])
