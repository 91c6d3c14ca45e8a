"""The tensor operations of the M5, against a stand-in that knows Apple's documentation and nothing of a device."""

from __future__ import annotations

import random
from collections.abc import Sequence

import mlx.core as mx
import numpy as np
import pytest
import reference
from kernels import BACKEND, TOLERANCE, Array, bias_silu, random_array, residual_gate, to_numpy

from convjit import simulator
from convjit.backends import Stretch
from convjit.geometry import Geometry, GeometryError, Window, plain_window
from convjit.kernel import Extra, Kernel, identity_epilogue
from convjit.schedule import Schedule
from convjit.schedule.metal.chip import CHIPS, DEFAULT
from convjit.schedule.metal.tensor_ops import available, tensor_ops

M5 = CHIPS["M5"]


def bare(geometry: Geometry, dtype: str = "f16") -> Kernel:
    return Kernel(geometry, dtype, (), identity_epilogue(dtype), (dtype,))


def plane(height: int, width: int, channels: int = 32, filters: int = 32) -> Geometry:
    one = (1, 1)
    return Geometry.of_shapes((1, height, width, channels), (filters, 3, 3, channels), Window(one, one, one, one, one))


def simulate(kernel: Kernel, schedule: Schedule, arrays: Sequence[mx.array]) -> list[Array]:
    """The results, and the rules of Metal that apply: the type check and those of the house do not know the API."""
    for launch in BACKEND.launches(kernel, schedule):
        assert [finding for finding in simulator.lint(launch.text) if not finding.house] == []
        assert np.prod(launch.threadgroup) == 32 * schedule.number("simdgroups")
    x, w, *extras = arrays
    packed = BACKEND.pack(kernel.geometry.window, schedule, w)
    return [to_numpy(r) for r in BACKEND.load(Stretch.of_kernel(kernel, schedule))([x, packed, *extras])]


def check(kernel: Kernel, schedule: Schedule, seed: int = 0) -> None:
    g = kernel.geometry
    shapes = [(g.in_shape, kernel.dtype), (g.weight_shape, kernel.dtype), *((e.shape, e.dtype) for e in kernel.extras)]
    arrays = [random_array(seed + n, *shape) for n, shape in enumerate(shapes)]
    x, w, *extras = map(to_numpy, arrays)
    exact = reference.results(kernel, x, w, extras)
    for y, expected, dtype in zip(simulate(kernel, schedule, arrays), exact, kernel.result_dtypes, strict=True):
        assert np.abs(y - expected).max() <= TOLERANCE[dtype] * np.abs(expected).max(), g


def random_kernel(seed: int) -> Kernel:
    choose = random.Random(seed)
    while True:
        rank = choose.choice((1, 2, 2, 3))
        size = {1: 70, 2: 12, 3: 4}[rank]

        def each(low: int, high: int, n: int = rank) -> tuple[int, ...]:
            return tuple(choose.randint(low, high) for _ in range(n))

        one, kernel = (1,) * rank, each(1, 4)
        dilation = tuple(choose.randint(1, 3) if k % 2 else 1 for k in kernel)
        window = Window(each(1, 3), each(-1, 3), each(-1, 3), dilation, one, 1, choose.random() < 0.2)
        channels, filters = choose.choice((32, 33, 48)), choose.choice((1, 7, 32, 40, 72))
        try:
            geometry = Geometry.of_shapes(
                (choose.choice((1, 2)), *each(1, size), channels), (filters, *kernel, channels), window
            )
        except GeometryError:
            continue
        break
    dtype, out = choose.choice(("f16", "bf16")), geometry.out_shape
    match choose.randrange(3):
        case 0:
            return bare(geometry, dtype)
        case 1:
            bias = Extra((*(1,) * (len(out) - 1), out[-1]), dtype)
            return Kernel(geometry, dtype, (bias,), bias_silu(dtype), (dtype,))
        case _:
            partial = tuple(n if choose.random() < 0.5 else 1 for n in out)
            return Kernel(
                geometry, dtype, (Extra(out, dtype), Extra(partial, "f32")), residual_gate(dtype), (dtype, "f32")
            )


@pytest.mark.parametrize("seed", range(24))
def test_random_kernels(seed: int) -> None:
    kernel = random_kernel(seed)
    schedules = tensor_ops(kernel, M5, 8)
    check(kernel, schedules[seed % len(schedules)], seed)


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_nothing_is_found_by_watching_every_access(dtype: str) -> None:
    kernel = bare(plane(9, 10), dtype)
    (schedule,) = tensor_ops(kernel, M5)
    w = BACKEND.pack(kernel.geometry.window, schedule, random_array(1, kernel.geometry.weight_shape, dtype))
    (launch,) = BACKEND.launches(kernel, schedule)
    done = simulator.execute(launch, [random_array(0, kernel.geometry.in_shape, dtype), w], check=True)
    assert done.findings == ()


def test_an_infinity_beyond_the_border_of_a_tile_stays_where_it_is() -> None:
    kernel = bare(plane(20, 20))
    (schedule,) = tensor_ops(kernel, M5)
    x = np.zeros(kernel.geometry.in_shape, np.float32)
    x[0, 8, 8, 0] = np.inf
    (y,) = simulate(
        kernel, schedule, [mx.array(x).astype(mx.float16), mx.ones(kernel.geometry.weight_shape, mx.float16)]
    )
    rows, columns = np.nonzero(np.isinf(y).all((0, 3)))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (7, 9, 7, 9)
    assert np.isfinite(y).sum() == y.size - 9 * 32


def test_it_is_for_new_chips_and_systems_only() -> None:
    assert available(M5, (26, 3)) and available(M5, (27, 0))
    assert not available(M5, (26, 2, 1)) and not available(M5, ()) and not available(CHIPS["M4 Max"], (26, 4))


def test_what_tensor_operations_do_not_take() -> None:
    assert tensor_ops(bare(plane(16, 16)), M5)
    assert not tensor_ops(bare(plane(16, 16), "f32"), M5)
    assert not tensor_ops(bare(plane(16, 16, channels=31)), M5)
    grouped = Geometry.of_shapes((1, 16, 16, 64), (64, 3, 3, 32), plain_window(2, groups=2))
    transposed = Geometry.of_shapes((1, 8, 8, 32), (32, 2, 2, 32), Window((1, 1), (1, 1), (1, 1), (1, 1), (2, 2)))
    uncertain = Geometry.of_shapes((1, 16, 16, 32), (32, 2, 2, 32), Window((1, 1), (0, 0), (0, 0), (2, 2), (1, 1)))
    assert not any(tensor_ops(bare(g), M5) for g in (grouped, transposed, uncertain))


def test_rows_are_long_enough() -> None:
    """Relaxed sums of one row gave wrong results on an M5 with fewer than 16 pixels a simdgroup."""
    row = Geometry.of_shapes((1, 20, 32), (32, 3, 32), plain_window(1))
    for schedule in tensor_ops(bare(row), M5, 100):
        assert schedule.number("rows") > 1 or schedule.number("columns") >= 16 * schedule.number("simdgroups")


def test_it_is_not_chosen_by_default() -> None:
    schedule = BACKEND.schedule(bare(plane(56, 56, 64, 64)))
    assert isinstance(schedule, Schedule) and schedule.template != "metal/tensor_ops.metal"


@pytest.mark.parametrize("batch", [1, 2])
def test_text_does_not_depend_on_the_batch(batch: int) -> None:
    geometry = plane(9, 9)
    many = Geometry.of_shapes((batch, *geometry.in_shape[1:]), geometry.weight_shape, geometry.window)
    (schedule,) = tensor_ops(bare(geometry), DEFAULT)
    assert BACKEND.source(bare(many), schedule) == BACKEND.source(bare(geometry), schedule)
