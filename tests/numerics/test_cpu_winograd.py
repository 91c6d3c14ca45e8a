"""CPU kernels by Winograd's algorithm: against float64, with what is not finite, and which schedules they get."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np
import pytest
import reference
from harness import Array, run
from sample import Numbers, random_kernel, random_numbers

from convjit.backends.cpu import CpuBackend
from convjit.emit.cpu import packing
from convjit.geometry import Geometry, GeometryError, Window
from convjit.kernel import Kernel, identity_epilogue
from convjit.schedule import Schedule
from convjit.schedule.cpu.machine import Machine
from convjit.schedule.cpu.tiling import tiling
from convjit.schedule.cpu.winograd import candidates, schedule
from convjit.schedule.cpu.winograd_plan import TEMPLATE, Winograd, has_few_channels, sums_of
from convjit.schedule.nest import nest

MACHINES = [Machine(16, 32), Machine(8, 16), Machine(4, 32), Machine(4, 16)]
EPS = {"f32": 2.0**-24, "f16": 2.0**-11, "bf16": 2.0**-8}

# ---- The kernels.


def plan_of(
    kernel: Kernel, machine: Machine, tile: tuple[int, int], packed: str = "height", **numbers: int
) -> Winograd | None:
    """One that need not pay; None if the template cannot do it."""
    loops, few = nest(kernel), has_few_channels(kernel.geometry.in_channels)
    high, wide = (tiling(loops.axes[i], loops.out_size[i], tile[i - 1], few) for i in (1, 2))
    if not high or not wide or (packed == "height" and high.residues * wide.residues > 1):
        return None
    channels, terms, image_tiles = sums_of(kernel, (high, wide))
    numbers["chunk"] = min(numbers["chunk"], terms)
    return Winograd((high, wide), channels, terms, image_tiles, machine.lanes, packed=packed, **numbers)


def random_winograd(seed: int) -> tuple[Kernel, Schedule]:
    """A kernel of any geometry and epilogue that the template takes, and a schedule with small blocks."""
    rng = np.random.default_rng(seed)
    while True:
        kernel = random_kernel(rng, str(rng.choice(["f32", "f32", "f32", "f16", "bf16"])), random_geometry(rng))
        several = [any(len(phase.taps) > 1 for phase in axis) for axis in nest(kernel).axes[1:]]
        high, wide = (int(rng.choice([2, 3, 4])) if taps else 1 for taps in several)
        group, groups, vectors, splits = (int(rng.integers(1, most)) for most in (6, 3, 3, 4))
        plan = plan_of(
            *(kernel, MACHINES[seed % len(MACHINES)], (high, wide), str(rng.choice(["height", "both"]))),
            group=group,
            tiles=group * groups,
            vectors=vectors,
            splits=splits,
            chunk=int(rng.choice([3, 16, 100])),
        )
        if plan and max(several):
            return kernel, plan.schedule()


def random_geometry(rng: np.random.Generator) -> Geometry:
    """One to three axes, some of them transposed, dilated or with a stride; kernels of up to 6 taps."""
    while True:
        rank = int(rng.choice([1, 2, 2, 2, 3]))
        transposed, dilated = rng.random() < 0.3, rng.random() < 0.15
        taps = [int(rng.choice([1, 2, 3, 3, 3, 4, 5])) for _ in range(rank)]
        strides = tuple(int(rng.choice([1, 2, 2, 3])) if not dilated else 1 for _ in range(rank))
        if transposed and rng.random() < 0.7:
            taps = [2 * s for s in strides]  # as many taps in each phase
        if rank == 3 and transposed:
            strides = (1, *strides[1:])
        one = (1,) * rank
        window = Window(
            strides=one if transposed else strides,
            pad_lo=tuple(int(v) for v in rng.integers(-1, 4, rank)),
            pad_hi=tuple(int(v) for v in rng.integers(-1, 4, rank)),
            kernel_dilation=(int(rng.choice([2, 3])),) * rank if dilated else one,
            input_dilation=strides if transposed else one,
            flip=bool(rng.random() < 0.5),
        )
        x = (int(rng.integers(1, 4)), *map(int, rng.integers(1, (60, 14, 7)[rank - 1], rank)))
        channels, outputs = int(rng.choice([1, 3, 16, 19, 40])), int(rng.choice([1, 5, 16, 33, 50]))
        try:
            return Geometry.of_shapes((*x, channels), (outputs, *taps, channels), window)
        except GeometryError:
            continue


def tolerance(kernel: Kernel, schedule: Schedule, numbers: Numbers) -> Array:
    """Roundings of a tile reach all of its outputs, so its largest sum counts: here, that of the whole result."""
    growth = prod(t.algorithm.amplification for t in Winograd.of(kernel, schedule).tilings)
    sums = reference.magnitude(kernel, numbers.x, numbers.w)
    scale = np.abs(numbers.extras[0]) if numbers.extras else np.ones(1)
    terms = sums * scale + sum(np.abs(e) for e in numbers.extras[1:])
    allowed = (8 * growth * EPS["f32"]) * sums.max() * scale + terms * (8 * EPS["f32"])
    return allowed if kernel.dtype == "f32" else allowed + terms * (2 * EPS[kernel.dtype]) + 2.0**-24


def check(backend: CpuBackend, kernel: Kernel, schedule: Schedule, numbers: Numbers) -> None:
    expected = reference.results(kernel, numbers.x, numbers.w, numbers.extras)
    allowed = tolerance(kernel, schedule, numbers)
    for got, want in zip(run(backend, kernel, schedule, numbers.x, numbers.w, numbers.extras), expected, strict=True):
        assert not np.isnan(got).any(), f"{np.isnan(got).sum()} of {got.size} outputs were not written"
        excess = np.abs(got - want) - allowed
        assert excess.max() <= 0, f"{(excess > 0).sum()} of {got.size} outputs are wrong: {got} instead of {want}"


RANDOM = 40


@pytest.fixture(scope="module", autouse=True)
def compiled(backend: CpuBackend) -> None:
    """All kernels at once, in parallel."""
    backend.compile([random_winograd(seed) for seed in range(RANDOM)], lambda done, total: None)


@pytest.mark.parametrize("seed", range(RANDOM))
@pytest.mark.usefixtures("guarded_memory")
def test_random_kernels(backend: CpuBackend, seed: int):
    kernel, choices = random_winograd(seed)
    check(backend, kernel, choices, random_numbers(np.random.default_rng(seed), kernel))


def chosen(kernel: Kernel) -> Schedule:
    """What is chosen, or would be if it paid."""
    plan = plan_of(kernel, MACHINES[0], (2, 4), "both", group=25, tiles=25, vectors=1, splits=1, chunk=64)
    assert plan is not None
    return schedule(kernel, MACHINES[0]) or plan.schedule()


def layer(x: tuple[int, ...], filters: int, kernel: tuple[int, ...], stride: int = 1, pad: int = 1) -> Kernel:
    one = (1,) * len(kernel)
    window = Window((stride,) * len(kernel), (pad,) * len(kernel), (pad,) * len(kernel), one, one)
    geometry = Geometry.of_shapes(x, (filters, *kernel, x[-1]), window)
    return Kernel(geometry, "f32", (), identity_epilogue("f32"), ("f32",))


def transposed(x: tuple[int, ...], filters: int, stride: int) -> Kernel:
    """A kernel of two strides, as generators and vocoders have it."""
    rank = len(x) - 2
    one, extents = (1,) * rank, (2 * stride,) * rank
    pad = (2 * stride - 1 - stride // 2,) * rank
    window = Window(one, pad, pad, one, (stride,) * rank, flip=True)
    geometry = Geometry.of_shapes(x, (filters, *extents, x[-1]), window)
    return Kernel(geometry, "f32", (), identity_epilogue("f32"), ("f32",))


LAYERS = {
    "3x3": layer((1, 28, 28, 64), 64, (3, 3)),
    "3x3, channels that fill no vector": layer((2, 14, 14, 90), 90, (3, 3)),
    "5x5": layer((1, 24, 24, 64), 32, (5, 5), pad=2),
    "stride 2": layer((1, 56, 56, 64), 64, (3, 3), stride=2),
    "1D": layer((1, 600, 64), 128, (3,)),
    "3D": layer((1, 6, 14, 14, 32), 32, (3, 3, 3)),
    "transposed": transposed((1, 16, 16, 64), 64, 2),
    "transposed 1D": transposed((1, 60, 64), 40, 5),
    "stem": layer((1, 80, 80, 3), 64, (7, 7), stride=2, pad=3),
    "stem, stride 4": layer((1, 90, 90, 3), 64, (11, 11), stride=4, pad=2),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.usefixtures("guarded_memory")
def test_accuracy_of_what_is_chosen(backend: CpuBackend, name: str):
    """Relative to the largest result, and to the sum of absolute products of each."""
    kernel = LAYERS[name]
    rng = np.random.default_rng(0)
    x, w = (
        rng.standard_normal(shape).astype(np.float32)
        for shape in (kernel.geometry.in_shape, kernel.geometry.weight_shape)
    )
    (got,) = run(backend, kernel, chosen(kernel), x, w, [])
    error = np.abs(got - reference.convolution(kernel.geometry, x, w))
    assert error.max() / np.abs(got).max() < 4e-6
    assert (error / reference.magnitude(kernel, x, w)).max() < 32 * EPS["f32"]


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.usefixtures("guarded_memory")
def test_what_is_not_finite_reaches_its_outputs_only(backend: CpuBackend, name: str, value: float):
    """Nor does what is so large that its rounding errors would hide what is beside it."""
    kernel = LAYERS[name]
    rng = np.random.default_rng(1)
    x, w = rng.standard_normal(kernel.geometry.in_shape), rng.standard_normal(kernel.geometry.weight_shape)
    clean = reference.convolution(kernel.geometry, x, w)
    for position in rng.integers(0, x.shape, (4, x.ndim)):
        x[tuple(position)] = value
    reached = reference.convolution(kernel.geometry, x, w) != clean
    (got,) = run(backend, kernel, chosen(kernel), x, w, [])
    assert 0 < reached.sum() < reached.size
    assert (np.abs(got - clean) < 1e-3)[~reached].all()
    assert not (np.abs(got) < 1e20)[reached].any()


# ---- The schedules.


def test_forms_of_an_axis():
    """Composed; with few channels, residues of a stride like channels; phases of as many taps apart."""
    stem, vocoder = nest(LAYERS["stem"]).axes[1], nest(LAYERS["transposed 1D"])
    composed, residues = tiling(stem, 40, 3, False), tiling(stem, 40, 3, True)
    apart = tiling(vocoder.axes[2], vocoder.out_size[2], 3, False)
    assert composed and residues and apart
    forms = [
        (t.residues, t.apart, t.shift, t.algorithm.positions, t.by_definition) for t in (composed, residues, apart)
    ]
    assert forms == [(1, 1, 0, 11, 21), (2, 1, 0, 6, 21), (1, 5, 2, 4, 30)]
    assert [t.multiplications for t in (composed, residues, apart)] == [11, 12, 20]
    uneven = replace(vocoder.axes[2][0], taps=(0,))
    assert tiling((uneven, *vocoder.axes[2][1:]), 300, 3, False) is None


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", LAYERS)
def test_what_kernels_need(backend: CpuBackend, name: str, machine: Machine):
    """Of memory 8 MiB a thread, of packed weights twice what they are, small ones four times, and short texts."""
    kernel = LAYERS[name]
    for choices in candidates(kernel, machine):
        plan = Winograd.of(kernel, choices)
        scratch = 4 * plan.positions * (plan.u_position + plan.m_position)
        assert plan.v_bytes + scratch <= 8 << 20
        packed = packing(kernel.geometry.window, kernel.geometry.weight_shape, choices)
        padded = prod(kernel.geometry.weight_shape[1:]) * packed.group_width
        assert packed.floats <= (4 if prod(kernel.geometry.weight_shape) <= 1_000_000 else 2) * padded
        assert len(backend.source(kernel, choices)) < 50_000


def test_what_winograd_does_not_take():
    plain = LAYERS["3x3"]
    assert schedule(plain, MACHINES[0]) is not None
    assert schedule(replace(plain, accuracy="precise"), MACHINES[0]) is None
    window = plain.geometry.window
    grouped = Geometry.of_shapes((1, 28, 28, 64), (64, 3, 3, 32), replace(window, groups=2))
    both = replace(plain.geometry, window=replace(window, strides=(2, 2), kernel_dilation=(2, 2)))
    pointwise, spectrogram = layer((1, 28, 28, 64), 64, (1, 1), pad=0), layer((1, 16000, 1), 402, (400,), 160, pad=0)
    for geometry in (grouped, both, pointwise.geometry, spectrogram.geometry):
        assert candidates(replace(plain, geometry=geometry), MACHINES[0]) == []


def test_fastest_takes_larger_tiles():
    kernel = layer((1, 128, 128, 64), 64, (5, 5), pad=2)
    fast, fastest = (candidates(replace(kernel, accuracy=a), MACHINES[0]) for a in ("fast", "fastest"))
    assert {s.template for s in (*fast, *fastest)} == {TEMPLATE}
    assert max(s.number("tile_h") * s.number("tile_w") for s in fastest) > max(
        s.number("tile_h") * s.number("tile_w") for s in fast
    )


def test_a_large_batch_takes_larger_tiles():
    """Tiles of all images share weights that are transformed along the width."""
    one, many = (schedule(layer((n, 14, 14, 512), 512, (3, 3)), MACHINES[0]) for n in (1, 16))
    assert one is not None and many is not None
    assert one.number("tiles") < many.number("tiles")


@pytest.mark.usefixtures("guarded_memory")
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_any_outermost_extent_shares_a_text(backend: CpuBackend, rank: int):
    """It is a run-time value, as the batch is."""
    texts: set[str] = set()
    for extent in (13, 20):
        kernel = layer((2, extent, *(9,) * (rank - 1), 16), 20, (3,) * rank)
        plan = plan_of(
            kernel, MACHINES[0], (2, 4) if rank > 1 else (1, 4), group=5, tiles=10, vectors=1, splits=2, chunk=8
        )
        assert plan is not None
        texts.add(backend.source(kernel, plan.schedule()))
        check(backend, kernel, plan.schedule(), random_numbers(np.random.default_rng(extent), kernel))
    assert len(texts) == 1


@pytest.mark.parametrize("threads", [1, 2, 4, 8])
def test_no_thread_waits_for_others(threads: int):
    """Where there are few blocks of tiles, threads share their output channels."""
    kernel = layer((1, 14, 14, 256), 256, (3, 3))
    found = schedule(kernel, replace(MACHINES[0], threads=threads))
    assert found is not None
    plan = Winograd.of(kernel, found)
    assert plan.tile_blocks(1) * plan.splits % threads == 0
