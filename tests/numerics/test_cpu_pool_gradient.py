"""Gradients of pools on the CPU against their definition in double precision: any window, padding and type."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import test_cpu_pool
from harness import Array, run_other
from reference import round_to
from test_cpu_kernels import MACHINES
from test_cpu_pool import pool_of, windows_of

from convjit.backends.cpu import CpuBackend
from convjit.emit.cpu import source
from convjit.kernel import PoolGradient
from convjit.schedule import Schedule
from convjit.schedule.cpu import pool_gradient
from convjit.schedule.cpu.machine import Machine

ROUNDING = {"f32": 2.0**-24, "f16": 2.0**-11, "bf16": 2.0**-8}
"""Of every addition, relative to the sum."""

SUBNORMAL = {"f32": 0, "f16": 2.0**-25, "bf16": 0}
"""Of every addition of small shares."""

Operands = tuple[Array, Array, Array]
"""The pool's input, its result, and the gradient with respect to that."""


def gradient_of(*args: object, **more: object) -> PoolGradient:
    """That of `pool_of("max", ...)`."""
    pool = pool_of("max", *args, **more)
    return PoolGradient(pool.geometry, pool.dtype)


def random_kernel(rng: np.random.Generator) -> PoolGradient:
    pool = test_cpu_pool.random_kernel(rng)
    return PoolGradient(pool.geometry, pool.dtype)


def random_schedule(rng: np.random.Generator, kernel: PoolGradient, machine: Machine) -> Schedule:
    """That of the machine, or one of other units."""
    chosen = pool_gradient.schedule(kernel, machine)
    if rng.random() < 0.5:
        return chosen
    blocks = {"channel_block": machine.lanes * int(rng.integers(1, 6))}
    return replace(chosen, choices=tuple((dict(chosen.choices) | blocks).items()))


def windows(kernel: PoolGradient, x: Array) -> Array:
    """Every output's window: (N, *outputs, C, elements)."""
    return windows_of(pool_of("max", x.shape, *_arguments(kernel)), x)


def _arguments(kernel: PoolGradient) -> tuple[tuple[int, ...], ...]:
    window = kernel.geometry.window
    return kernel.geometry.kernel, window.strides, window.pad_lo, window.pad_hi


def definition(kernel: PoolGradient, x: Array, y: Array, dy: Array) -> tuple[Array, Array]:
    """The gradient, and the sum of magnitudes of what was added up for each element."""
    ties = windows(kernel, x) == y[..., None]
    with np.errstate(all="ignore"):
        shares = (dy / ties.sum(-1))[..., None] * ties
    places = windows(kernel, np.arange(x.size).reshape(x.shape).astype(np.float64))
    inside = np.isfinite(places) & (windows(kernel, np.ones(x.shape)) == 1)
    where = places[inside].astype(np.int64)
    totals = []
    for values in (shares, np.abs(shares)):
        total = np.zeros(x.size)
        np.add.at(total, where, values[inside])
        totals.append(total.reshape(x.shape))
    return totals[0], totals[1]


def numbers_for(kernel: PoolGradient, seed: int) -> Operands:
    """Few different numbers: windows have several maxima."""
    rng = np.random.default_rng(seed)
    x = rng.integers(-3, 4, kernel.geometry.in_shape).astype(np.float64)
    return x, windows(kernel, x).max(-1), round_to(rng.standard_normal(kernel.geometry.out_shape), kernel.dtype)


def check(backend: CpuBackend, kernel: PoolGradient, schedule: Schedule, operands: Operands) -> None:
    exact, magnitudes = definition(kernel, *operands)
    most = np.prod([-(-n // s) for n, s in zip(*_arguments(kernel)[:2], strict=True)]) + 2
    (actual,) = run_other(backend, kernel, schedule, operands)
    bound = most * (ROUNDING[kernel.dtype] * magnitudes + SUBNORMAL[kernel.dtype])
    assert (np.abs(actual - exact) <= bound).all(), kernel.in_words()


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
@pytest.mark.usefixtures("guarded_memory")
def test_windows_with_nan_and_infinities(backend: CpuBackend, dtype: str):
    """NaN has no equal: a window with it gives NaN to all of its elements, and to no others. In windows of -inf alone,
    the padding has its part."""
    kernel = gradient_of((2, 9, 11, 21), (3, 3), (2, 1), (1, 1), dtype=dtype)
    rng = np.random.default_rng(4)
    x = rng.choice([np.nan, np.inf, -np.inf, 1.0, 2.0], kernel.geometry.in_shape, p=[0.02, 0.1, 0.68, 0.1, 0.1])
    x[0, :4] = -np.inf
    y, dy = windows(kernel, x).max(-1), np.ones(kernel.geometry.out_shape)
    (actual,) = run_other(backend, kernel, pool_gradient.schedule(kernel, MACHINES[0]), (x, y, dy))
    exact, _ = definition(kernel, x, y, dy)
    np.testing.assert_allclose(actual, exact, rtol=8 * ROUNDING[dtype])
    assert np.isnan(exact).any() and np.isfinite(exact).any() and actual[0, 0, 0, 0] < actual[0, 1, 1, 0]


@pytest.mark.usefixtures("guarded_memory")
def test_elements_of_no_window_get_nothing(backend: CpuBackend):
    kernel = gradient_of((1, 8, 8, 5), (2, 2), (3, 3), (0, 0))
    x, ones = np.ones(kernel.geometry.in_shape), np.ones(kernel.geometry.out_shape)
    (actual,) = run_other(backend, kernel, pool_gradient.schedule(kernel, MACHINES[0]), [x, ones, ones])
    assert (actual[0, 2::3] == 0).all() and (actual[0, :, 2::3] == 0).all() and actual.sum() == 9 * 5


@pytest.mark.parametrize("shape", [(9, 40), (9, 7, 40), (9, 5, 7, 40)])
def test_kernels_that_differ_in_batch_or_outermost_extent_share_a_text(shape: tuple[int, ...]):
    rank = len(shape) - 1

    def text(*x: int) -> str:
        kernel = gradient_of(x, (3,) * rank, (2,) * rank, (1,) * rank)
        return source(kernel, pool_gradient.schedule(kernel, MACHINES[0])).text

    assert text(2, *shape) == text(5, *shape) == text(1, 6, *shape[1:]) != text(2, *shape[:-1], 41)
