"""The depthwise Metal kernel: its text, run on the host, against float64."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from kernels import bias_silu, check, random_kernel

from benchmarks.problems import problems, shrink
from convjit.geometry import Geometry, GeometryError, Window
from convjit.kernel import Extra, Kernel, identity_epilogue
from convjit.schedule.metal.chip import DEFAULT
from convjit.schedule.metal.depthwise import axes_of, depthwise

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


@pytest.mark.parametrize("seed", range(100))
def test_random_geometries(seed: int) -> None:
    """Any of the schedules, for a chip that wants few threads or many."""
    choose = random.Random(seed)
    kernel = random_kernel(choose, random_geometry(choose))
    chip = replace(DEFAULT, cores=choose.choice((0.01, 0.1, 1)))
    check(kernel, choose.choice(depthwise(kernel, chip, 20)), seed)


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("name", NAMES)
def test_problems(name: str, dtype: str) -> None:
    geometry = shrink(PROBLEMS[name])
    bias = Extra((*(1,) * (len(geometry.out_shape) - 1), geometry.out_channels), dtype)
    kernel = Kernel(geometry, dtype, (bias,), bias_silu(dtype), (dtype,))
    (schedule,) = depthwise(kernel, DEFAULT)
    check(kernel, schedule)
