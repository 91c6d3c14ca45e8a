"""The work that a schedule promises is what the simulator counts."""

from __future__ import annotations

import random
from dataclasses import replace
from math import prod

import kernels
import mlx.core as mx
import pytest

from benchmarks.problems import problems, shrink
from convjit.backends import MLX_DTYPES
from convjit.kernel import Extra, Kernel
from convjit.schedule import Schedule
from convjit.schedule.metal import chip
from convjit.schedule.metal.depthwise import depthwise
from convjit.schedule.metal.direct import direct
from convjit.schedule.metal.gemm import gather, gemm, stem
from convjit.schedule.metal.grouped import grouped
from convjit.schedule.metal.tile import Tile
from convjit.schedule.metal.winograd import winograd
from convjit.schedule.metal.work import Work, work

GEOMETRIES = {problem.name: problem.geometry for problem in problems()}

CASES = [
    ("rn50_stem", "stem"),
    ("rn50_c2_3x3", "gemm"),
    ("rn50_c2_3x3", "winograd"),
    ("sd_vae_down_asym", "gemm"),
    ("rn50_c5_3x3", "split"),
    ("rn50_1x1_exp", "gather"),
    ("mbv2_dw_s1", "depthwise"),
    ("mbv2_dw_s2", "depthwise"),
    ("replk_dw31", "depthwise"),
    ("dw_T1d", "depthwise"),
    ("resnext_g32", "grouped"),
    ("dcgan_T4x4", "gemm"),
    ("dcgan_T4x4", "direct"),
]


def schedule_by(way: str, kernel: Kernel) -> Schedule:
    m1 = chip.CHIPS["M1"]
    match way:
        case "direct":
            return direct(kernel)
        case "grouped":
            return grouped(kernel, m1)[0]
        case "winograd":
            return winograd(kernel, m1, 2)[0]
        case "split":
            return next(s for s in gemm(kernel, chip.CHIPS["M3 Ultra"], 100) if Tile.of(s).parts > 1)
        case _:
            return {"gemm": gemm, "stem": stem, "gather": gather, "depthwise": depthwise}[way](kernel, m1, 1)[0]


def check(kernel: Kernel, schedule: Schedule, tolerance: float) -> None:
    promised = work(kernel, schedule)
    g, dtype = kernel.geometry, MLX_DTYPES[kernel.dtype]
    packed = kernels.BACKEND.pack(g.window, schedule, mx.zeros(g.weight_shape, dtype))
    extras = [mx.zeros(e.shape, MLX_DTYPES[e.dtype]) for e in kernel.extras]
    launches = kernels.BACKEND.dispatches(kernel, schedule)
    done = kernels.BACKEND.examine(launches, [mx.zeros(g.in_shape, dtype), packed, *extras])
    for mine, counted, launch in zip(promised, done.counters, launches, strict=True):
        products = counted.mma_operations * 512 if mine.on_matrices else counted.fma_operations
        numbers = {
            "read": (mine.bytes_read, counted.device_bytes_read),
            "written": (mine.bytes_written, counted.device_bytes_written),
            "multiply-adds": (mine.multiply_adds, products if products else mine.multiply_adds),
            "threads": (mine.threads, prod(launch.threadgroup)),
        }
        for what, (by_arithmetic, by_counting) in numbers.items():
            assert by_arithmetic == pytest.approx(by_counting, rel=tolerance), (what, schedule, launch.text.name)
        if mine.on_matrices:
            assert mine.threadgroups <= prod(launch.grid) // prod(launch.threadgroup)


@pytest.mark.parametrize(("name", "way"), CASES)
def test_problems(name: str, way: str) -> None:
    geometry = shrink(GEOMETRIES[name])
    bias = Extra((*(1,) * (geometry.rank + 1), geometry.out_channels), "f16")
    kernel = Kernel(geometry, "f16", (bias,), kernels.bias_silu("f16"), ("f16",))
    check(kernel, schedule_by(way, kernel), 0.05)


@pytest.mark.parametrize("seed", range(8))
def test_random_geometries_by_matrices(seed: int) -> None:
    """Odd sizes, padding, dilation, groups, phases: to the byte."""
    choose = random.Random(seed)
    kernel = kernels.random_kernel(choose, kernels.random_geometry(choose))
    channels = 8 * kernel.geometry.window.groups
    kernel = replace(kernel, geometry=replace(kernel.geometry, in_channels=channels))
    check(kernel, gemm(kernel, chip.CHIPS["M1"], 1)[0], 0.0)


def test_bytes_that_must_move() -> None:
    geometry = GEOMETRIES["rn50_c2_3x3"]
    kernel = Kernel(geometry, "f32", (Extra(geometry.out_shape, "f32"),), kernels.bias_silu("f32"), ("f32",))
    arrays = (geometry.in_shape, geometry.weight_shape, geometry.out_shape, geometry.out_shape)
    (once,) = work(kernel, gemm(kernel, chip.CHIPS["M1"], 1)[0])
    assert isinstance(once, Work) and once.bytes_once == 4 * sum(map(prod, arrays))
