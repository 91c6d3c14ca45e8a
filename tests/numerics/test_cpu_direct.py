"""Direct kernels in their special roles: taps in the padding, sums in parts, few outputs, many phases."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from sample import random_kernel, random_numbers
from test_cpu_kernels import MACHINES, bare, check

from convjit.backends.cpu import CpuBackend
from convjit.emit import cpu as emit
from convjit.geometry import Geometry, Window, plain_window
from convjit.kernel import Kernel, identity_epilogue
from convjit.schedule import Schedule
from convjit.schedule.cpu import direct, dot
from convjit.schedule.cpu.machine import Machine

LANES_8 = MACHINES[1]

PADDED = replace(plain_window(2), pad_lo=(1, 1), pad_hi=(1, 1))
DILATED = Window((1, 1), (4, 4), (4, 4), (4, 4), (1, 1))
UPSAMPLING = Window((1, 1), (2, 2), (2, 2), (1, 1), (2, 2), flip=True)
TEMPORAL = replace(plain_window(3), pad_lo=(2, 0, 1), pad_hi=(0, 0, 1))


def altered(schedule: Schedule, **choices: int) -> Schedule:
    return replace(schedule, choices=tuple((dict(schedule.choices) | choices).items()))


CASES = {
    "dilated, whole tiles in the padding": (bare((2, 13, 13, 5), (20, 3, 3, 5), DILATED), {}),
    "dilated, no tile on a border": (
        bare((1, 12, 12, 5), (20, 3, 3, 5), DILATED),
        {"tile_rows": 2, "tile_columns": 4, "row_block": 12, "column_block": 12, "vectors": 1},
    ),
    "tall tiles on a border": (
        bare((2, 7, 7, 6), (9, 3, 3, 6), PADDED),
        {"tile_rows": 2, "tile_columns": 7, "row_block": 8, "column_block": 7, "vectors": 1},
    ),
    "rows of taps apart": (
        bare((1, 30, 9, 4), (8, 2, 3, 4), Window((1, 1), (11, 4), (11, 4), (20, 4), (1, 1))),
        {"tile_rows": 1, "tile_columns": 5, "row_block": 2, "column_block": 10, "vectors": 1},
    ),
    "planes in the padding": (bare((2, 4, 5, 6, 3), (5, 3, 1, 3, 3), TEMPORAL), {"terms": 4}),
    "sums set aside after some runs": (bare((2, 6, 9, 40), (40, 3, 3, 40), PADDED), {"terms": 150}),
    "sums set aside within a run": (bare((2, 5, 5, 300), (20, 1, 1, 300), plain_window(2)), {"terms": 70}),
    "threads share sums": (bare((3, 6, 9, 40), (40, 3, 3, 40), PADDED), {"terms": 100, "shares_sums": 1}),
    "threads share sums of groups": (
        bare((2, 4, 4, 80), (36, 3, 3, 40), replace(PADDED, groups=2)),
        {
            "terms": 30,
            "shares_sums": 1,
            "vectors": 2,
            "tile_rows": 1,
            "tile_columns": 3,
            "row_block": 2,
            "column_block": 6,
        },
    ),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.usefixtures("guarded_memory")
def test_schedule(backend: CpuBackend, name: str):
    kernel, choices = CASES[name]
    schedule = altered(direct.schedule(kernel.any_batch(), LANES_8), **choices)
    check(backend, kernel, schedule, random_numbers(np.random.default_rng(0), kernel))


SPLIT = {
    "pointwise": (Geometry.of_shapes((3, 5, 7, 37), (70, 1, 1, 37), plain_window(2)), {"splits": 3}),
    "cropped": (
        Geometry.of_shapes((2, 9, 8, 6), (40, 2, 3, 6), replace(plain_window(2), pad_lo=(-1, -2))),
        {"splits": 2},
    ),
    "threads share sums": (
        Geometry.of_shapes((3, 4, 4, 90), (70, 1, 1, 90), plain_window(2)),
        {"splits": 2, "terms": 30, "shares_sums": 1},
    ),
    "several units of the input": (Geometry.of_shapes((2, 40, 15, 33), (40, 1, 1, 33), plain_window(2)), {"splits": 2}),
}


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
@pytest.mark.parametrize("name", SPLIT)
@pytest.mark.usefixtures("guarded_memory")
def test_blocks_of_channels_share_a_converted_input(backend: CpuBackend, name: str, dtype: str):
    geometry, choices = SPLIT[name]
    kernel = random_kernel(np.random.default_rng(3), dtype, geometry)
    schedule = altered(direct.schedule(kernel.any_batch(), LANES_8), vectors=1, **choices)
    assert "{ units_of_input, widen }" in emit.source(kernel, schedule).text
    check(backend, kernel, schedule, random_numbers(np.random.default_rng(0), kernel))


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
@pytest.mark.usefixtures("guarded_memory")
def test_images_that_would_share_much_are_done_in_several_calls(backend: CpuBackend, dtype: str):
    """Their sums have four parts, 11 MB in all."""
    geometry = Geometry.of_shapes((91, 4, 4, 64), (512, 1, 1, 64), plain_window(2))
    kernel = random_kernel(np.random.default_rng(3), dtype, geometry)
    one = direct.schedule(kernel.any_batch(), LANES_8)
    schedule = altered(one, vectors=1, splits=2, terms=16, shares_sums=1)
    check(backend, kernel, schedule, random_numbers(np.random.default_rng(0), kernel))


FEW_OUTPUTS = {
    "one channel to one": bare((2, 9, 11, 1), (1, 3, 3, 1), PADDED),
    "an odd tail": bare((2, 9, 21, 21), (3, 3, 3, 21), PADDED),
    "dilated": bare((1, 12, 12, 17), (4, 3, 3, 17), DILATED),
    "upsampling": bare((2, 5, 6, 24), (3, 4, 4, 24), UPSAMPLING),
    "phases of different taps": bare((1, 9, 16), (2, 3, 16), Window((1,), (2,), (2,), (1,), (2,), flip=True)),
    "phases of different taps and a tail": bare((1, 9, 5), (2, 3, 5), Window((1,), (2,), (2,), (1,), (2,), flip=True)),
    "pointwise": bare((2, 3, 5, 7, 32), (4, 1, 1, 1, 32), plain_window(3)),
}


@pytest.mark.parametrize("machine", MACHINES, ids=lambda m: f"{m.lanes} lanes, {m.registers} registers")
@pytest.mark.parametrize("name", FEW_OUTPUTS)
@pytest.mark.usefixtures("guarded_memory")
def test_few_outputs(backend: CpuBackend, name: str, machine: Machine):
    kernel = FEW_OUTPUTS[name]
    if kernel.geometry.out_channels > machine.lanes // 2:
        kernel = replace(kernel, geometry=with_outputs(kernel.geometry, 2))
    schedule = dot.fitting(kernel.any_batch(), machine)
    assert schedule
    check(backend, kernel, schedule, random_numbers(np.random.default_rng(0), kernel))


def with_outputs(geometry: Geometry, outputs: int) -> Geometry:
    return replace(geometry, out_channels=outputs)


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
@pytest.mark.usefixtures("guarded_memory")
def test_few_outputs_have_any_epilogue(backend: CpuBackend, dtype: str):
    rng = np.random.default_rng(5)
    for _ in range(3):
        kernel = random_kernel(rng, dtype, FEW_OUTPUTS["an odd tail"].geometry)
        schedule = dot.fitting(kernel.any_batch(), MACHINES[0])
        assert schedule
        check(backend, kernel, schedule, random_numbers(rng, kernel))


@pytest.mark.usefixtures("guarded_memory")
def test_infinity_stays_in_its_output(backend: CpuBackend):
    kernel = FEW_OUTPUTS["an odd tail"]
    schedule = dot.fitting(kernel.any_batch(), MACHINES[0])
    assert schedule
    numbers = random_numbers(np.random.default_rng(0), kernel)
    numbers.x[0, 4, 10, 3] = np.inf
    from harness import run  # the harness needs the fixtures of this folder

    (got,) = run(backend, kernel, schedule, numbers.x, numbers.w, [])
    assert not np.isnan(got).any()
    assert np.isinf(got).sum() == 3 * 3 * 3


OVERLAP_ADD = {
    "one channel": bare((2, 9, 1), (1, 32, 1), Window((1,), (31,), (31,), (1,), (8,), flip=True)),
    "cropped": bare((2, 30, 3), (1, 20, 3), Window((1,), (19,), (9,), (1,), (5,), flip=True)),
    "image": bare((2, 5, 6, 4), (1, 3, 4, 4), Window((1, 1), (1, 3), (2, 3), (1, 1), (2, 2), flip=True)),
    "many phases": bare((1, 20, 1), (1, 400, 1), Window((1,), (399,), (399,), (1,), (100,), flip=True)),
}


@pytest.mark.parametrize("dtype", ["f32", "f16"])
@pytest.mark.parametrize("name", OVERLAP_ADD)
@pytest.mark.usefixtures("guarded_memory")
def test_phases_are_channels(backend: CpuBackend, name: str, dtype: str):
    rng = np.random.default_rng(7)
    for machine in MACHINES[:2]:
        kernel = random_kernel(rng, dtype, OVERLAP_ADD[name].geometry)
        schedule = direct.schedule(kernel.any_batch(), machine)
        assert schedule.number("folds") == 1
        check(backend, kernel, schedule, random_numbers(rng, kernel))


def of_extent(extent: int) -> list[Kernel]:
    """Kernels whose outermost extent is `extent`."""
    return [
        bare((1, extent, 31, 8), (40, 3, 3, 8), PADDED),
        bare((1, 20 * extent, 8), (40, 3, 8), replace(plain_window(1), pad_lo=(1,), pad_hi=(1,))),
        bare((1, extent, 20, 16), (40, 1, 1, 16), plain_window(2)),
        bare((1, extent, 20, 16), (40, 4, 4, 16), UPSAMPLING),
        bare((1, extent, 31, 8), (3, 3, 3, 8), PADDED),
        bare((1, 20 * extent, 1), (1, 32, 1), Window((1,), (31,), (31,), (1,), (8,), flip=True)),
    ]


def test_kernels_of_any_outermost_extent_share_their_text():
    for short, long in zip(of_extent(50), of_extent(64), strict=True):
        for schedules in (direct.candidates, dot_candidates):
            texts = {
                emit.source(kernel, s).text for kernel in (short, long) for s in schedules(kernel, MACHINES[0])[:1]
            }
            assert len(texts) <= 1


def dot_candidates(kernel: Kernel, machine: Machine) -> list[Schedule]:
    found = dot.schedule(kernel, machine)
    return [found] if found else []


def test_many_phases_are_a_short_text():
    window = Window((1,), (4095,), (4095,), (1,), (1024,), flip=True)
    kernel = bare((1, 20, 4), (6, 4096, 4), window)
    assert len(emit.source(kernel, direct.schedule(kernel, MACHINES[0])).text) < 100_000


def test_few_pieces_of_work_share_sums():
    head = bare((1, 2, 2, 4096), (64, 1, 1, 4096), plain_window(2))
    assert direct.schedule(head, MACHINES[0]).number("shares_sums") == 1
    large = bare((1, 56, 56, 64), (64, 3, 3, 64), PADDED)
    assert direct.schedule(large, MACHINES[0]).number("shares_sums") == 0


@pytest.mark.parametrize("dilation", [1, 4, 12])
def test_memory_is_bounded(dilation: int):
    pad = (3 * dilation,) * 2
    kernel = bare((1, 33, 90, 2048), (256, 7, 7, 2048), Window((1, 1), pad, pad, (dilation,) * 2, (1, 1)))
    for schedule in direct.candidates(kernel, MACHINES[0]):
        (scratch,) = re.findall(r"scratch_bytes = (\d+)", emit.source(kernel, schedule).text)
        assert int(scratch) <= 8 << 20


def test_nothing_is_fetched_behind_a_copy():
    """There, another thread writes its own copy."""
    for dtype, is_copied in (("f32", False), ("bf16", True)):
        geometry = Geometry.of_shapes((1, 28, 28, 64), (32, 1, 1, 64), plain_window(2))
        kernel = Kernel(geometry, dtype, (), identity_epilogue(dtype), (dtype,))
        text = emit.source(kernel, direct.schedule(kernel, MACHINES[0])).text
        assert ("*ahead = b->source + " in text) == is_copied
        assert ("*ahead = from + " in text) != is_copied


def test_vectors_of_few_channels_are_short():
    for channels, lanes in ((3, 4), (4, 4), (8, 8), (9, 16), (64, 16)):
        schedule = dot.fitting(bare((1, 16, 16, channels), (1, 3, 3, channels), PADDED), MACHINES[0])
        assert schedule is not None and schedule.number("lanes") == lanes
