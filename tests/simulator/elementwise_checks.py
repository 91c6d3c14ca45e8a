"""What the tests of elementwise Metal kernels share: a text run on the host against float64, and random cases."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import numpy as np
from elementwise_kernels import Array, assert_right, numbers_for, random_kernel
from kernels import BACKEND, to_numpy

from convjit.backends import MLX_DTYPES
from convjit.kernel import Elementwise
from convjit.schedule import Schedule
from convjit.schedule.metal.chip import DEFAULT
from convjit.schedule.metal.elementwise import Tile, elementwise


def chosen_for(kernel: Elementwise) -> Schedule:
    return elementwise(kernel, DEFAULT)


def by_tile(kernel: Elementwise, tile: Tile) -> Schedule:
    return tile.schedule(is_flat=len(kernel.collapsed().shape) == 1, has_sums=kernel.has_sums)


def simulate(kernel: Elementwise, schedule: Schedule, operands: Sequence[Array]) -> list[Array]:
    """The results of `kernel` by `schedule`; linter, type check and checker must find nothing."""
    pairs = zip(operands, kernel.operands, strict=True)
    arrays = [mx.array(v.astype(np.float32)).astype(MLX_DTYPES[o.dtype]) for v, o in pairs]
    done = BACKEND.examine(BACKEND.dispatches(kernel, schedule), arrays)
    assert done.findings == ()
    assert [r.dtype for r in done.results] == [MLX_DTYPES[dtype] for dtype in kernel.result_dtypes]
    for counters in done.counters:
        assert 64 <= counters.threads <= 256 and counters.buffers <= 31 and counters.threadgroup_memory <= 16 << 10
    return [to_numpy(r) for r in done.results]


def check(kernel: Elementwise, schedule: Schedule, seed: int = 0) -> None:
    operands = numbers_for(kernel, seed)
    assert_right(kernel, operands, simulate(kernel, schedule, operands))


def check_random(seed: int) -> None:
    """Any ops, broadcasts, types, results and sums; by the schedule of the chip, and by any other."""
    rng = np.random.default_rng(seed)
    outer = rng.choice([1, 2, 3, 5, 9], int(rng.integers(0, 4)))
    kernel = random_kernel(rng, (*map(int, outer), int(rng.choice([1, 3, 8, 16, 17, 40, 130]))))
    check(kernel, chosen_for(kernel), seed)
    is_flat, columns = len(kernel.collapsed().shape) == 1, kernel.collapsed().shape[-1]
    lanes = 128 if is_flat else int(rng.choice([1, 4, 32, 128]))
    vector = 4 if is_flat else int(rng.choice([n for n in (1, 2, 3, 4, 5) if columns % n == 0]))
    check(kernel, by_tile(kernel, Tile(vector, lanes, 128 // lanes, int(rng.integers(1, 4)))), seed)
