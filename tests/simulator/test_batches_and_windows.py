"""Kernels on matrices with batches that their schedules were not made for, and odd windows."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from kernels import check, residual_gate

from convjit.geometry import Geometry, Window, plain_window
from convjit.kernel import Extra, Kernel, identity_epilogue
from convjit.schedule import Schedule
from convjit.schedule.metal.chip import CHIPS, DEFAULT
from convjit.schedule.metal.gemm import gather, gemm, stem


def bare(geometry: Geometry) -> Kernel:
    return Kernel(geometry, "f32", (), identity_epilogue("f32"), ("f32",))


def gated(batch: int) -> Kernel:
    """A residual in halves, a gate of one number an image, two results of different types."""
    geometry = Geometry.of_shapes((batch, 3, 5, 12), (11, 2, 2, 12), plain_window(2))
    extras = (Extra(geometry.out_shape, "f16"), Extra((batch, 1, 1, 1), "f32"))
    return Kernel(geometry, "f16", extras, residual_gate("f16"), ("f16", "f32"))


@pytest.mark.parametrize("batch", [2, 5, 8])
def test_a_schedule_serves_batches_that_it_was_not_made_for(batch: int) -> None:
    several = next(s for s in gemm(gated(6), DEFAULT, 40) if s.number("images") > 2)
    check(gated(batch), several)


@pytest.mark.parametrize("flip", [False, True])
def test_strides_and_dilations_that_share_factors(flip: bool) -> None:
    """Along the first axis, taps of every other output meet only zeros; those of the others are 2 elements apart."""
    geometry = Geometry.of_shapes(
        (2, 5, 6, 9), (10, 4, 2, 9), Window((3, 2), (0, -2), (2, 3), (4, 2), (6, 2), flip=flip)
    )
    schedules = gemm(bare(geometry), DEFAULT, 2)
    assert schedules
    for schedule in schedules:
        check(bare(geometry), schedule)


@pytest.mark.parametrize(("make", "channels"), [(stem, 3), (gather, 9)])
def test_inputs_dilated_by_their_stride(make: Callable[..., list[Schedule]], channels: int) -> None:
    """Which is one plain convolution, of fewer taps."""
    window = Window((2, 1), (2, 1), (1, 0), (1, 3), (2, 1))
    geometry = Geometry.of_shapes((3, 7, 6, channels), (9, 3, 2, channels), window)
    schedules = make(bare(geometry), DEFAULT, 2)
    assert schedules
    for schedule in schedules:
        check(bare(geometry), schedule)


def split_in_two(filters: int) -> tuple[Kernel, Schedule]:
    geometry = Geometry.of_shapes((1, 2, 2, 64), (filters, 2, 2, 64), plain_window(2))
    kernel = bare(geometry)
    return kernel, next(s for s in gemm(kernel, CHIPS["M1"], 100) if s.number("parts") == 2)


def test_few_partial_sums() -> None:
    check(*split_in_two(4))


def test_partial_sums_in_the_constant_address_space() -> None:
    check(*split_in_two(2))
