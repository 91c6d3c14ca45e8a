"""The CPU kernels of depthwise convolutions and of those with few channels a group, against the definition."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
from harness import run, schedule_of
from sample import random_kernel, random_numbers
from test_cpu_kernels import MACHINES, check

from convjit.backends.cpu import CpuBackend
from convjit.geometry import Geometry, GeometryError, Window, plain_window
from convjit.kernel import Kernel, identity_epilogue
from convjit.schedule import Schedule
from convjit.schedule.cpu.depthwise import candidates, edges, schedule
from convjit.schedule.cpu.machine import Machine
from convjit.schedule.nest import nest

SAMPLES = int(os.environ.get("CPU_FUZZ_COUNT", "40"))


def random_geometry(rng: np.random.Generator) -> Geometry:
    """Few channels a group, any window; rows long enough for tiles of every class."""
    while True:
        rank = int(rng.integers(1, 4))

        def draw(*values: int, rank: int = rank) -> tuple[int, ...]:
            return tuple(int(v) for v in rng.choice(values, rank))

        in_group = int(rng.choice([1, 1, 1, 2, 4]))
        out_group = in_group * int(rng.choice([1, 1, 2, 3]))
        groups = int(rng.choice([2, 5, 12, 17, 37, 48]))
        kernel = (*draw(1, 2, 3, 3), int(rng.choice([1, 3, 3, 5, 7, 11, 20])))[1:]
        transposed = rng.random() < 0.25
        window = Window(
            strides=draw(1, 1, 2, 3),
            pad_lo=draw(-1, 0, 1, 1, 3, 6),
            pad_hi=draw(-1, 0, 1, 1, 3, 6),
            kernel_dilation=draw(1, 1, 1, 2),
            input_dilation=draw(1, 2, 3) if transposed else (1,) * rank,
            groups=groups,
            flip=transposed,
        )
        size = (int(rng.integers(1, 5)), *draw(1, 3, 9), int(rng.choice([1, 5, 16, 29, 60])))[-rank:]
        try:
            return Geometry.of_shapes(
                (int(rng.integers(1, 3)), *size, in_group * groups), (out_group * groups, *kernel, in_group), window
            )
        except GeometryError:
            continue


def work() -> list[tuple[Kernel, Schedule]]:
    """One kernel in three in half precision, one in two with small blocks; machines and candidates in turn."""
    found: list[tuple[Kernel, Schedule]] = []
    rng = np.random.default_rng(5)
    while len(found) < SAMPLES:
        number = len(found)
        dtype = ("f32", "f32", "f32", "f32", "f16", "bf16")[number % 6]
        kernel = random_kernel(rng, dtype, random_geometry(rng))
        machine = MACHINES[number % 4]
        if number // 2 % 2:
            machine = replace(machine, l1_bytes=3000, l2_bytes=6000)
        if choices := candidates(kernel.any_batch(), machine):
            found.append((kernel, choices[number // 4 % len(choices)]))
    return found


@pytest.fixture(scope="module", autouse=True)
def compiled(backend: CpuBackend) -> None:
    """All kernels at once, in parallel."""
    cases = [(k, s) for k in CASES.values() for m in CASE_MACHINES if (s := schedule(k.any_batch(), m))]
    backend.compile([*work(), *cases], lambda done, total: None)


@pytest.mark.parametrize("number", range(SAMPLES))
@pytest.mark.usefixtures("guarded_memory")
def test_random_kernel(backend: CpuBackend, number: int):
    kernel, chosen = work()[number]
    check(backend, kernel, chosen, random_numbers(np.random.default_rng(number), kernel))


def bare(x: tuple[int, ...], w: tuple[int, ...], window: Window) -> Kernel:
    return Kernel(Geometry.of_shapes(x, w, window), "f32", (), identity_epilogue("f32"), ("f32",))


CASE_MACHINES = MACHINES[:2]


def padded(groups: int, *pad: int) -> Window:
    return replace(plain_window(len(pad), groups), pad_lo=pad, pad_hi=pad)


CASES = {
    "MobileNet": bare((2, 28, 28, 40), (40, 3, 3, 1), padded(40, 1, 1)),
    "ConvNeXt": bare((1, 30, 31, 24), (24, 7, 7, 1), padded(24, 3, 3)),
    "RepLKNet": bare((1, 20, 40, 17), (17, 31, 31, 1), padded(17, 15, 15)),
    "causal": bare((2, 70, 33), (33, 4, 1), replace(plain_window(1, 33), pad_lo=(3,))),
    "a row of 128 taps": bare((1, 90, 20), (20, 128, 1), padded(20, 64)),
    "multiplier": bare((1, 20, 20, 32), (64, 3, 3, 1), padded(32, 1, 1)),
    "multiplier 3": bare((1, 20, 20, 21), (63, 3, 3, 1), padded(21, 1, 1)),
    "ResNeXt": bare((1, 17, 16, 64), (64, 3, 3, 4), padded(16, 1, 1)),
    "groups across vectors": bare((2, 9, 20, 30), (60, 3, 3, 5), padded(6, 1, 1)),
    "depth": bare((1, 4, 8, 20, 20), (20, 3, 3, 3, 1), padded(20, 1, 1, 1)),
    "transposed": bare((2, 50, 20), (20, 12, 1), Window((1,), (11,), (11,), (1,), (2,), 20, True)),
    "stride 8": bare((1, 50, 16), (16, 16, 1), Window((8,), (4,), (4,), (1,), (1,), 16)),
    "weights that would crowd": bare((1, 14, 14, 256), (256, 3, 3, 1), padded(256, 1, 1)),
}


@pytest.mark.parametrize("machine", CASE_MACHINES)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.usefixtures("guarded_memory")
def test_case(backend: CpuBackend, name: str, machine: Machine):
    kernel = CASES[name]
    chosen = schedule(kernel.any_batch(), machine)
    if chosen is None:
        assert kernel.geometry.out_channels // kernel.geometry.window.groups >= machine.lanes
        return
    check(backend, kernel, chosen, random_numbers(np.random.default_rng(0), kernel))


ROLLING = {
    "ConvNeXt": Geometry.of_shapes((2, 50, 61, 24), (24, 7, 7, 1), padded(24, 3, 3)),
    "cropped": Geometry.of_shapes((1, 30, 45, 17), (17, 9, 6, 1), replace(plain_window(2, 17), pad_lo=(-1, -2))),
    "dilated": Geometry.of_shapes((1, 72, 56, 20), (20, 9, 9, 1), Window((1, 1), (8, 4), (8, 4), (2, 1), (1, 1), 20)),
    "padding beyond the kernel": Geometry.of_shapes((2, 9, 30, 5), (5, 11, 5, 1), padded(5, 12, 8)),
    "multiplier": Geometry.of_shapes((1, 20, 40, 32), (64, 9, 9, 1), padded(32, 4, 4)),
    "groups": Geometry.of_shapes((1, 20, 30, 34), (34, 7, 7, 2), padded(17, 3, 3)),
}


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
@pytest.mark.parametrize("l1_bytes", [48 << 10, 32 << 10])
@pytest.mark.parametrize("name", ROLLING)
@pytest.mark.usefixtures("guarded_memory")
def test_rows_are_converted_once(backend: CpuBackend, name: str, l1_bytes: int, dtype: str):
    kernel = random_kernel(np.random.default_rng(1), dtype, ROLLING[name])
    chosen = schedule(kernel.any_batch(), Machine(16, 32, l1_bytes))
    assert chosen and chosen.is_set("rolls")
    check(backend, kernel, chosen, random_numbers(np.random.default_rng(0), kernel))


def test_few_functions_and_short_texts(backend: CpuBackend):
    for kernel in CASES.values():
        for machine in MACHINES:
            for chosen in candidates(kernel, machine):
                in_place = not chosen.number("copies")
                assert not in_place or len(edges(nest(kernel), chosen.number("tile_columns"), copies=False)) <= 6
                assert len(backend.source(kernel, chosen)) < 40_000


@pytest.mark.parametrize(
    ("channels", "outputs", "groups"), [(64, 64, 1), (256, 256, 16), (64, 32, 16)], ids=["one", "wide", "narrowing"]
)
def test_others_are_not_its_kind(channels: int, outputs: int, groups: int):
    kernel = bare((1, 9, 9, channels), (outputs, 3, 3, channels // groups), plain_window(2, groups))
    assert schedule(kernel, MACHINES[0]) is None


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.usefixtures("guarded_memory")
def test_what_is_not_finite_stays_with_its_group(backend: CpuBackend, value: float):
    kernel = CASES["ResNeXt"]
    numbers = random_numbers(np.random.default_rng(0), kernel)
    numbers.x[0, 8, 8, 9] = value
    (got,) = run(backend, kernel, schedule_of(backend, kernel), numbers.x, numbers.w, [])
    spoiled = np.argwhere(~np.isfinite(got))
    assert spoiled.min(0).tolist() == [0, 7, 7, 8]
    assert spoiled.max(0).tolist() == [0, 9, 9, 11]
    assert len(spoiled) == 9 * 4


@pytest.mark.usefixtures("guarded_memory")
@pytest.mark.parametrize("rank", [2, 3])
def test_any_outermost_extent_shares_a_text(backend: CpuBackend, rank: int):
    """It is a run-time value, as the batch is; the width is not, for tiles at its edges have functions of their own."""
    for dilation, transposed in ((1, False), (2, False), (2, True)):
        window = Window(
            (1,) * rank, *[(dilation,) * rank] * 3, (2 if transposed else 1,) * rank, groups=32, flip=transposed
        )

        def of(extent: int, window: Window = window) -> Kernel:
            geometry = Geometry.of_shapes((2, extent, *((17,), (5, 17))[rank - 2], 32), (32, *(3,) * rank, 1), window)
            return Kernel(geometry, "f32", (), identity_epilogue("f32"), ("f32",))

        for one in candidates(of(6), MACHINES[0]):
            texts = {backend.source(of(extent), one) for extent in (6, 11, 40)}
            assert len(texts) == 1
            for extent in (6, 11):
                check(backend, of(extent), one, random_numbers(np.random.default_rng(extent), of(extent)))
