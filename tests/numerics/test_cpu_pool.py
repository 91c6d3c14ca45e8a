"""Pools on the CPU against NumPy in double precision: any rank, window, stride, padding, channels and type."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from harness import Array, run_other
from reference import round_to
from test_cpu_kernels import MACHINES

from convjit.backends.cpu import CpuBackend
from convjit.emit.cpu import source
from convjit.geometry import Geometry, GeometryError, Window
from convjit.kernel import Pool
from convjit.schedule import Schedule
from convjit.schedule.cpu import pool
from convjit.schedule.cpu.machine import Machine

ROUNDING = {"f32": 2.0**-21, "f16": 2.0**-11, "bf16": 2.0**-8}
"""Of a sum, relative to the sum of magnitudes."""


def pool_of(
    kind: str,
    x: tuple[int, ...],
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    pad_lo: tuple[int, ...],
    pad_hi: tuple[int, ...] | None = None,
    dtype: str = "f32",
) -> Pool:
    one = (1,) * len(kernel)
    window = Window(strides, pad_lo, pad_lo if pad_hi is None else pad_hi, one, one, groups=x[-1])
    geometry = Geometry.of_shapes(x, (x[-1], *kernel, 1), window)
    return Pool("max" if kind == "max" else "sum", geometry, dtype, geometry.out_shape)


def random_kernel(rng: np.random.Generator) -> Pool:
    """Odd sizes, strides beyond the window, padding beyond it, windows of a whole image."""
    while True:
        rank = int(rng.integers(1, 4))

        def draw(*values: int, rank: int = rank) -> tuple[int, ...]:
            return tuple(int(v) for v in rng.choice(values, rank))

        spatial = tuple(int(n) for n in rng.integers(1, (60, 14, 7)[rank - 1], rank))
        x = (int(rng.integers(1, 4)), *spatial, int(rng.choice([1, 3, 8, 16, 17, 40, 64, 70, 150])))
        window = spatial if rng.random() < 0.2 else draw(1, 2, 2, 3, 3, 5)
        kind, dtype = str(rng.choice(["max", "sum"])), str(rng.choice(["f32", "f32", "f16", "bf16"]))
        try:
            padding = draw(0, 0, 1, 2, 4), draw(0, 0, 1, 2, 4)
            return pool_of(kind, x, window, draw(1, 2, 2, 3, 4), *padding, dtype)
        except GeometryError:
            continue


def random_schedule(rng: np.random.Generator, kernel: Pool, machine: Machine) -> Schedule:
    """That of the machine, or one of small units."""
    chosen = pool.schedule(kernel, machine)
    if rng.random() < 0.5:
        return chosen
    blocks = {"pixel_block": int(rng.integers(1, 8)), "channel_block": machine.lanes * int(rng.integers(1, 6))}
    return replace(chosen, choices=tuple((dict(chosen.choices) | blocks).items()))


def windows_of(kernel: Pool, x: Array) -> Array:
    """Every output's window, in the order of its elements: (N, *outputs, C, elements)."""
    geometry, window = kernel.geometry, kernel.geometry.window
    pads = [(0, 0), *zip(window.pad_lo, window.pad_hi, strict=True), (0, 0)]
    padded = np.pad(x, pads, constant_values=-np.inf if kernel.kind == "max" else 0)
    axes = tuple(range(1, geometry.rank + 1))
    views = np.lib.stride_tricks.sliding_window_view(padded, geometry.kernel, axes)
    steps = tuple(slice(None, None, stride) for stride in window.strides)
    return views[(slice(None), *steps)].reshape(*geometry.out_shape, -1)


def numbers_for(kernel: Pool, seed: int) -> Array:
    return round_to(np.random.default_rng(seed).standard_normal(kernel.geometry.in_shape), kernel.dtype)


def check(backend: CpuBackend, kernel: Pool, schedule: Schedule, x: Array) -> None:
    (actual,), windows = run_other(backend, kernel, schedule, [x]), windows_of(kernel, x)
    if kernel.kind == "max":
        assert np.array_equal(actual, windows.max(-1))
    else:
        bound = ROUNDING[kernel.dtype] * np.abs(windows).sum(-1)
        assert (np.abs(actual - windows.sum(-1)) <= bound).all(), kernel.in_words()


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
@pytest.mark.usefixtures("guarded_memory")
def test_maxima_of_nan_infinities_and_zeros(backend: CpuBackend, dtype: str):
    """NaN shows in every window that holds one, whatever is beside it; of zeros of both signs, the first counts."""
    kernel = pool_of("max", (2, 9, 11, 21), (3, 3), (2, 1), (1, 1), dtype=dtype)
    rng = np.random.default_rng(4)
    x = rng.choice(
        [np.nan, np.inf, -np.inf, 0.0, -0.0, -1.0, -2.0], kernel.geometry.in_shape, p=[0.05, 0.02, *[0.31] * 3, 0, 0]
    )
    x[0, :5], x[1, 3:] = -np.inf, rng.choice([-0.0, 0.0, -1.0], x[1, 3:].shape)
    windows = windows_of(kernel, x)
    first = np.take_along_axis(windows, windows.argmax(-1)[..., None], -1)[..., 0]  # of NaN, too
    (actual,) = run_other(backend, kernel, pool.schedule(kernel, MACHINES[0]), [x])
    assert np.array_equal(actual, first, equal_nan=True)
    zeros = actual == 0
    assert zeros.any() and np.array_equal(np.signbit(actual[zeros]), np.signbit(first[zeros]))
    assert np.isnan(actual).any() and (actual == -np.inf).any() and (actual == np.inf).any()


@pytest.mark.usefixtures("guarded_memory")
def test_sums_of_nan_and_infinities_stay_in_their_windows(backend: CpuBackend):
    kernel = pool_of("sum", (1, 8, 8, 5), (2, 2), (2, 2), (0, 0))
    x = np.ones(kernel.geometry.in_shape)
    x[0, 0, 0, 0], x[0, 2, 2, 1], x[0, 2, 3, 2], x[0, 3, 2, 2] = np.nan, np.inf, np.inf, -np.inf
    (actual,) = run_other(backend, kernel, pool.schedule(kernel, MACHINES[0]), [x])
    expected = np.full((1, 4, 4, 5), 4.0)
    expected[0, 0, 0, 0], expected[0, 1, 1, 1], expected[0, 1, 1, 2] = np.nan, np.inf, np.nan
    assert np.array_equal(actual, expected, equal_nan=True)


@pytest.mark.parametrize("kind", ["max", "sum"])
@pytest.mark.usefixtures("guarded_memory")
def test_windows_of_padding_hold_nothing(backend: CpuBackend, kind: str):
    kernel = pool_of(kind, (1, 3, 3, 4), (2, 2), (1, 1), (3, 0), (3, 2))
    (actual,) = run_other(backend, kernel, pool.schedule(kernel, MACHINES[0]), [np.ones(kernel.geometry.in_shape)])
    assert (actual[0, :2] == (-np.inf if kind == "max" else 0)).all() and (actual[0, 2:-2, :3] >= 1).all()


@pytest.mark.usefixtures("guarded_memory")
@pytest.mark.parametrize("shape", [(1, 112, 112, 3), (2, 5000, 20)], ids=["image", "row"])
def test_long_sums_are_exact(backend: CpuBackend, shape: tuple[int, ...]):
    """To 4e-6, even where all numbers of a channel are equal, so that every addition of a chain rounds the same way."""
    *_, channels = shape
    kernel = pool_of("sum", shape, shape[1:-1], (1,) * (len(shape) - 2), (0,) * (len(shape) - 2))
    x = round_to(np.broadcast_to(np.random.default_rng(3).uniform(1, 2, channels), shape), "f32")
    (actual,) = run_other(backend, kernel, pool.schedule(kernel, MACHINES[0]), [x])
    np.testing.assert_allclose(actual, windows_of(kernel, x).sum(-1), rtol=4e-6)


@pytest.mark.parametrize("shape", [(9, 40), (9, 7, 40), (9, 5, 7, 40)])
def test_kernels_that_differ_in_batch_or_outermost_extent_share_a_text(shape: tuple[int, ...]):
    rank = len(shape) - 1

    def text(*x: int) -> str:
        kernel = pool_of("max", x, (3,) * rank, (2,) * rank, (1,) * rank)
        return source(kernel, pool.schedule(kernel, MACHINES[0])).text

    assert text(2, *shape) == text(5, *shape) == text(1, 6, *shape[1:]) != text(2, *shape[:-1], 41)
