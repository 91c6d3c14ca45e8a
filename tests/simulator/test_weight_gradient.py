"""The Metal kernels of weight gradients: their text, run on the host, against float64."""

from __future__ import annotations

import random
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from kernels import BACKEND, Array, random_array, to_numpy
from test_cpu_weight_gradient import ROUNDING, kernel_of, random_geometry, weight_gradient

from convjit.geometry import Geometry, Window, plain_window
from convjit.kernel import Kernel
from convjit.schedule import Schedule
from convjit.schedule.metal import candidates, choose, smaller
from convjit.schedule.metal.chip import CHIPS, DEFAULT
from convjit.schedule.metal.weight_gradient import DIRECT, MAX_CHAIN, TEMPLATE, Product, Tile, direct, products


def simulate(kernel: Kernel, schedule: Schedule, x: mx.array, dy: mx.array) -> Array:
    """The gradient; linter, type check and checker must find nothing."""
    done = BACKEND.examine(BACKEND.dispatches(kernel, schedule), [x, dy])
    assert done.findings == (), schedule
    for counters in done.counters:
        assert 64 <= counters.threads <= 256
        assert counters.threadgroup_memory <= 16 << 10
    (result,) = done.results
    assert result.shape == kernel.result_shape
    return to_numpy(result)


def check(kernel: Kernel, schedule: Schedule, seed: int = 0) -> None:
    """Every element is as near as its rounding and chains of single precision allow."""
    x, dy = (random_array(seed + n, shape, kernel.dtype) for n, shape in enumerate(kernel.operand_shapes))
    got, exact = simulate(kernel, schedule, x, dy), weight_gradient(kernel.geometry, to_numpy(x), to_numpy(dy))
    magnitude = weight_gradient(kernel.geometry, np.abs(to_numpy(x)), np.abs(to_numpy(dy)))
    bound = 3e-6 * magnitude + ROUNDING[kernel.dtype] * np.abs(exact) + 1e-7
    assert np.all(np.abs(got - exact) <= bound), (kernel, schedule)


@pytest.mark.parametrize("seed", range(40))
def test_random_kernels(seed: int) -> None:
    """Any schedule of matrices that is legal on some chip, and the direct one."""
    pick = random.Random(seed)
    kernel = kernel_of(random_geometry(np.random.default_rng(seed)), pick.choice(("f32", "f16", "bf16")))
    chip = CHIPS[pick.choice(sorted(CHIPS))]
    check(kernel, pick.choice(products(kernel, chip, 100)), seed)
    check(kernel, direct(kernel, chip), seed)
