"""The cost model: what limits a kernel, and that it sees what a schedule is good and bad at."""

from __future__ import annotations

from dataclasses import replace

import pytest

from convjit.geometry import Geometry, Window, plain_window
from convjit.kernel import Kernel, identity_epilogue
from convjit.schedule.metal import choose
from convjit.schedule.metal.chip import CHIPS
from convjit.schedule.metal.cost import cost, occupancy
from convjit.schedule.metal.direct import direct
from convjit.schedule.metal.gemm import gemm
from convjit.schedule.metal.winograd import winograd
from convjit.schedule.metal.work import Work

SAME = Window((1, 1), (1, 1), (1, 1), (1, 1), (1, 1))
DENSE = Geometry.of_shapes((8, 56, 56, 128), (128, 3, 3, 128), SAME)
POINTWISE = Geometry.of_shapes((8, 112, 112, 16), (16, 1, 1, 16), plain_window(2))
TINY = Geometry.of_shapes((1, 8, 8, 16), (16, 3, 3, 16), SAME)


def kernel_of(geometry: Geometry, dtype: str = "f32") -> Kernel:
    return Kernel(geometry, dtype, (), identity_epilogue(dtype), (dtype,))


def by_choice(geometry: Geometry, chip: str, dtype: str = "f32"):
    kernel = kernel_of(geometry, dtype)
    return cost(kernel, choose(kernel, CHIPS[chip]), CHIPS[chip])


def test_what_limits() -> None:
    assert by_choice(DENSE, "M1").limited_by == "multiply-adds"
    assert by_choice(POINTWISE, "M1").limited_by == "memory"
    assert by_choice(TINY, "M3 Ultra").limited_by == "launches"
    kernel = kernel_of(DENSE)
    assert cost(kernel, direct(kernel), CHIPS["M1"]).limited_by == "caches"


def test_no_faster_than_the_chip() -> None:
    for name, chip in CHIPS.items():
        seconds = by_choice(DENSE, name).seconds
        assert DENSE.flops / seconds < chip.teraflops * 1e12 * chip.matrix_rate
        assert DENSE.flops / seconds > chip.teraflops * 1e12 * chip.matrix_rate * 0.7


def test_larger_chips_are_faster() -> None:
    times = [by_choice(DENSE, name).seconds for name in ("M1", "M1 Pro", "M1 Max", "M1 Ultra")]
    assert times == sorted(times, reverse=True)


def test_half_moves_half() -> None:
    full, half = (by_choice(POINTWISE, "M2", dtype).seconds for dtype in ("f32", "f16"))
    assert full / half == pytest.approx(2, rel=0.1)


def test_matrices_beat_one_thread_a_pixel() -> None:
    kernel, chip = kernel_of(DENSE), CHIPS["M2 Pro"]
    assert 2 * cost(kernel, gemm(kernel, chip, 1)[0], chip).seconds < cost(kernel, direct(kernel), chip).seconds


def test_each_launch_takes_its_time() -> None:
    kernel, chip = kernel_of(TINY), CHIPS["M1"]
    one, three = cost(kernel, direct(kernel), chip), cost(kernel, winograd(kernel, chip, 2)[0], chip)
    assert one.seconds >= 7.5e-6 and three.seconds >= 3 * 7.5e-6


def test_occupancy() -> None:
    chip = CHIPS["M1"]  # 8 cores with room for 6 threadgroups of 128 threads
    launch = Work(0, 0, 0, 0, True, threadgroups=48, threads=128)
    assert occupancy(launch, "f32", chip) == 1
    assert occupancy(replace(launch, threadgroups=49), "f32", chip) == pytest.approx(49 / 48 / (1 + 1 / 3))
    assert occupancy(replace(launch, threadgroups=8), "f32", chip) == pytest.approx(0.5)
    assert occupancy(replace(launch, threadgroups=1), "f32", chip) == pytest.approx(1 / 16)
    assert occupancy(replace(launch, threadgroups=4800), "f32", chip) == 1
    assert occupancy(replace(launch, threads=64, threadgroups=96), "f32", chip) == 1
