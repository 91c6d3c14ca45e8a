"""Schedules of "cpu/winograd.c": which algorithm along each axis, how many tiles at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from math import ceil, prod
from operator import itemgetter

from convjit.geometry import Geometry
from convjit.kernel import Kernel
from convjit.schedule import Schedule
from convjit.schedule.cpu.direct import has_pairs
from convjit.schedule.cpu.machine import Machine
from convjit.schedule.cpu.tiles import equal_size
from convjit.schedule.cpu.tiling import Tiling, tiling
from convjit.schedule.cpu.winograd_plan import LEAST_CHANNELS, LINE, Winograd, has_few_channels, sums_of
from convjit.schedule.nest import Nest, nest
from convjit.schedule.phases import Phase, phases_of_axes

_MOST_V_BYTES = 4 << 20
"""Of transformed inputs of a thread."""

_MOST_AMPLIFICATION = {"precise": 0.0, "fast": 10.0, "fastest": 32.0}
"""Of errors, by accuracy: F(4, 3) has 9 in two dimensions, F(6, 3) has 7 in one and 46 in two. "precise" has none of
it: an error of a tile's largest number is in all of its outputs, however small they are."""

_SMALL_WEIGHT = 1_000_000
"""Numbers. Most of a network's are in larger weights."""

_GROWTH_OF_SMALL, _MOST_GROWTH = 4, 1.7
"""Of packed weights: F(4, 3) along both axes makes them 4 times as large, F(3, 3) along one 1.67 times."""

_MOST_CHAIN = 112
"""Terms in one chain of additions. Longer ones err more (of 320: 4.2e-6 instead of 1.8e-6), and were slower, too."""

_FEW_TERMS = 64
"""With so few, four vectors of output channels are summed at once: whole pixels are written, all weights stay near."""

_MOST_POSITIONS = 24
"""Of an axis, so that a kernel's text remains small."""

_INPUT_BYTES_A_CYCLE, _WEIGHT_BYTES_A_CYCLE = 13, 30
"""That a core gets from beyond its second-level cache while it also computes: weights are fetched ahead."""

_THREADS = 2
"""For which a plan is chosen: the number of threads must not change a bit of the results."""

_UNITS_OF_THREAD = 8
"""So many units of work for each thread need not be as many for all."""

_DIRECT = 1.15
"""Times its peak is what a direct convolution takes, by the cycles of this model."""

_PAIRS = 1.8
"""How many times as quick a direct convolution is that multiplies pairs of bf16 (as measured on Zen 4)."""

_CANDIDATES = 5


def schedule(kernel: Kernel, machine: Machine) -> Schedule | None:
    """The schedule of "cpu/winograd.c" for a kernel.

    Choices: `tile_h` x `tile_w` outputs of each phase in a tile; `lanes` of a vector; `vectors` of output channels by
    `group` tiles summed in registers; `tiles` whose inputs are transformed together; `chunk` terms whose weights are
    transformed together; `splits` of the output channels that are work by themselves; how weights are `packed`.

    Returns:
        None where a direct convolution should be as fast, and with the accuracy "precise".
    """
    return next(iter(_best(kernel, machine, 1)), None)


def candidates(kernel: Kernel, machine: Machine) -> list[Schedule]:
    """The best schedule for each of the best algorithms, best first; empty where `schedule` is None."""
    return _best(kernel, machine, _CANDIDATES)


def _best(kernel: Kernel, machine: Machine, count: int) -> list[Schedule]:
    loops = nest(kernel)
    geometry = kernel.geometry
    outputs = geometry.out_channels
    if geometry.window.groups > 1 or len(loops.axes[0]) > 1 or outputs < LEAST_CHANNELS:
        return []
    if not _reads_every_element(geometry):
        return []
    high, wide = (_tilings(loops, axis, has_few_channels(geometry.in_channels)) for axis in (1, 2))
    tilings = [pair for pair in product(high, wide) if _pays(pair, kernel)]
    bounds = [(_least_cycles(kernel, pair, machine), number) for number, pair in enumerate(tilings)]
    found: list[tuple[float, int, Winograd | None]] = [(_direct_cycles(kernel, machine), -1, None)] * count
    for bound, number in sorted(bounds):
        if bound >= found[-1][0]:
            break
        plans = _plans(kernel, tilings[number], machine)
        timed = ((_cycles(plan, geometry.batch, outputs, machine), number, plan) for plan in plans)
        if best := min(timed, key=itemgetter(0), default=None):
            found = sorted([*found, best], key=itemgetter(0, 1))[:count]
    return [_shared(plan, kernel, machine).schedule() for _, _, plan in found if plan]


def _shared(plan: Winograd, kernel: Kernel, machine: Machine) -> Winograd:
    """The plan with enough units for the threads that there are, which leaves all sums as they are."""
    geometry = kernel.geometry
    splits = _splits(plan.tile_blocks(geometry.batch), plan.blocks(geometry.out_channels), machine.threads)
    return replace(plan, splits=splits)


def _pays(tilings: tuple[Tiling, Tiling], kernel: Kernel) -> bool:
    """Does an algorithm multiply less than the definition, on enough channels, and err no more than it may?"""
    if prod(t.multiplications for t in tilings) >= prod(t.by_definition for t in tilings):
        return False
    if kernel.geometry.in_channels * prod(t.residues for t in tilings) < LEAST_CHANNELS:
        return False
    high, wide = (t.algorithm for t in tilings)
    return high.amplification * wide.amplification <= _MOST_AMPLIFICATION[kernel.accuracy]


def _reads_every_element(geometry: Geometry) -> bool:
    """Does each element of the kernel meet the input? With a stride and an input dilation, some may meet zeros only."""
    axes = zip(phases_of_axes(geometry.window, geometry.kernel), geometry.kernel, strict=True)
    return all({tap for phase in axis for tap in phase.taps} == set(range(extent)) for axis, extent in axes)


def _tilings(loops: Nest, axis: int, few_channels: bool) -> list[Tiling]:
    """Those that multiply less than the definition, with 2, 3, 4 or 6 outputs; else, single outputs of single taps."""
    phases, extent = loops.axes[axis], loops.out_size[axis]
    found = [tiling(phases, extent, tile, few_channels) for tile in (2, 3, 4, 6)]
    saving = [
        t for t in found if t and t.multiplications < t.by_definition and t.algorithm.positions <= _MOST_POSITIONS
    ]
    single = tiling(phases, extent, 1, few_channels) if all(len(phase.taps) == 1 for phase in phases) else None
    return saving or ([single] if single else [])


def _plans(kernel: Kernel, tilings: tuple[Tiling, Tiling], machine: Machine) -> Iterator[Winograd]:
    """All sensible blocks of tiles for an algorithm."""
    channels, terms, image_tiles = sums_of(kernel, tilings)
    tiles = max(1, kernel.geometry.batch) * image_tiles
    few = 1 if machine.lanes == 16 else 2  # AVX-512 multiplies by a number in memory, others have to load it
    widths = {few, 2 * few, 4 if terms <= _FEW_TERMS else few}
    for packed, vectors in product(_packings(kernel, tilings), sorted(widths)):
        most = max(1, (machine.registers - 2 - vectors) // vectors)
        of_channels = prod(t.apart for t in tilings) * ceil(kernel.geometry.out_channels / machine.lanes / vectors)
        chunk = _MOST_CHAIN
        if packed == "height":
            row_bytes = 4 * tilings[1].algorithm.positions * machine.lanes * vectors
            chunk = max(LINE, machine.l1_bytes // 2 // row_bytes)
        chunk = equal_size(terms, chunk)
        for groups in range(1, 6):
            for group in sorted({most, most - (most > 8), ceil(equal_size(tiles, groups * most) / groups)}):
                splits = _splits(ceil(tiles / (groups * group)), of_channels, _THREADS)
                plan = Winograd(
                    *(tilings, channels, terms, image_tiles, machine.lanes, vectors),
                    *(group, group * groups, chunk, splits, packed),
                )
                if plan.v_bytes <= _MOST_V_BYTES:
                    yield plan


def _splits(blocks: int, of_channels: int, threads: int) -> int:
    """In how many units a block of tiles is done, of its blocks of channels: no thread should wait long for others, but
    units read weights twice and transform inputs by themselves."""
    for splits in (1, 2, 4, 8, 16):
        units = blocks * splits
        if splits >= of_channels or units % threads == 0 or units >= _UNITS_OF_THREAD * threads:
            return min(splits, of_channels)
    return of_channels


def _packings(kernel: Kernel, tilings: tuple[Tiling, Tiling]) -> Iterator[str]:
    """How weights may be packed."""
    high, wide = (t.growth for t in tilings)
    has_residues = any(t.residues > 1 for t in tilings)
    if high <= _MOST_GROWTH and not has_residues:
        yield "height"
    if high * wide <= (_GROWTH_OF_SMALL if prod(kernel.geometry.weight_shape) <= _SMALL_WEIGHT else _MOST_GROWTH):
        yield "both"


def _cycles(plan: Winograd, batch: int, outputs: int, machine: Machine) -> float:
    """Of one core, roughly, for all images: the parts of the template as they were measured with AVX-512."""
    positions, vectors = plan.positions, plan.blocks(outputs) * plan.vectors
    blocks = plan.tile_blocks(batch)
    sums, loads = plan.group * plan.vectors, plan.group + 2 * plan.vectors  # weights are also fetched ahead
    of_term, chunks = max(sums, loads, 8) / 2, ceil(plan.terms / plan.chunk)
    groups = plan.tiles // plan.group * vectors / plan.vectors
    multiply = groups * (plan.terms * of_term + (3 * chunks - 2) * sums)  # M is written, then read and written
    if plan.v_bytes + 4 * positions * plan.m_position > machine.l2_bytes * 3 // 8:
        multiply += 4 * plan.tiles * plan.terms * vectors / plan.vectors / _INPUT_BYTES_A_CYCLE
    transforms = plan.tiles * (2 * plan.splits * plan.terms / plan.lanes + 10 * vectors + 4 * vectors / plan.vectors)
    weights = 4 * plan.terms * vectors * plan.lanes
    if plan.packed == "height":
        transforms += 3 * plan.terms * vectors
        weights /= plan.tilings[1].growth
    if weights * positions > machine.l2_bytes * 5 // 8:
        multiply += weights / _WEIGHT_BYTES_A_CYCLE
    idle = max(1.0, _THREADS / (blocks * plan.splits))
    return idle * blocks * positions * (multiply + transforms)


def _least_cycles(kernel: Kernel, tilings: tuple[Tiling, Tiling], machine: Machine) -> float:
    """Less than what `_cycles` finds for any plan: multiply-adds and transforms alone."""
    geometry = kernel.geometry
    _, terms, image_tiles = sums_of(kernel, tilings)
    vectors = prod(t.apart for t in tilings) * ceil(geometry.out_channels / machine.lanes)
    cycles = vectors * terms / 2 + 2 * terms / machine.lanes + 10 * vectors
    return max(1, geometry.batch) * image_tiles * prod(t.algorithm.positions for t in tilings) * cycles


def _direct_cycles(kernel: Kernel, machine: Machine) -> float:
    """Of one core for a direct convolution, near its peak: it leaves out rows of taps in the padding, and columns if
    they are far apart."""
    loops, geometry = nest(kernel), kernel.geometry
    products = sum(prod(_products(loops, phase, axis) for axis in range(3)) for phase in loops.phases)
    vectors = ceil(geometry.out_channels / machine.lanes)
    terms = geometry.in_channels / (_PAIRS if has_pairs(kernel, machine) else 1)
    return _DIRECT * geometry.batch * products * terms * vectors / 2


def _products(loops: Nest, phase: Phase, axis: int) -> int:
    """Taps of all outputs of a phase along an axis."""
    at, extent = phase[axis], loops.in_size[axis]
    outputs = at.outputs(loops.out_size[axis])
    if axis == 2 and at.step == 1:
        return outputs * len(at.taps)
    firsts = (at.offset + tap * at.step for tap in range(len(at.taps)))
    return sum(
        len(range(first % at.stride if first < 0 else first, min(extent, first + outputs * at.stride), at.stride))
        for first in firsts
    )
