"""Schedules of "cpu/direct.c", chosen by a small model of what a core can do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from math import ceil, prod

from convjit.kernel import Kernel
from convjit.schedule import Schedule
from convjit.schedule.cpu.fold import folded
from convjit.schedule.cpu.machine import Machine
from convjit.schedule.cpu.tiles import term_cycles
from convjit.schedule.nest import Nest, nest
from convjit.schedule.phases import AxisPhase

SMALL_EXTENT = 49
"""The outermost extent is a run-time value. Up to here a schedule may be made for just this one, beyond for a rough
size: 7 x 7 images are common."""

LARGE_EXTENT = 512
"""An outermost extent beyond which the schedule is always the same."""

MAX_CHAIN = 4608
"""Terms in one chain of additions: beyond that, single precision loses digits that a user would miss."""

BLOCK_PIXELS = 256
"""Outputs of a block, at most: more would leave threads without work."""

UNITS = 32
"""Pieces of work in an image, at least, where there are as many: threads share them."""

MIN_UNITS = 8
"""Below so many pieces of work, the terms of an output are shared, too."""

UNIT_PRODUCTS = 400_000
"""Multiply-adds that are worth a thread's attention."""

LARGE_OUTPUT, CONTIGUOUS_VECTORS, SCATTERED_CYCLES = 4, 4, 8
"""Outputs of more than so many second-level caches leave the core: vectors of them written by tiles of fewer than so
many side by side cost so many cycles each."""

CONVERSION = 8000
"""Multiply-adds that take as long as beginning and ending the copy of a block's input as floats."""

MOST_WIDENED = 4 << 20
"""Bytes of an input that is made floats as a whole."""

COMPACT_INPUTS = 2.5
"""Pixels that are copied group by group for each output, at most."""

MAX_SCRATCH = 6 << 20
"""Bytes of a thread for the copy of a block's input."""


@dataclass(frozen=True, slots=True)
class Tile:
    """Rows, columns, and vectors of output channels that are summed in registers."""

    rows: int
    columns: int
    vectors: int


def schedule(kernel: Kernel, machine: Machine) -> Schedule:
    """The schedule of "cpu/direct.c" for a kernel.

    Choices: `lanes` of a vector; `vectors` of output channels and `tile_rows` x `tile_columns` outputs summed in
    registers; `row_block` x `column_block` outputs whose input is kept at hand; `splits` of the output channels that
    are work by themselves; `terms` summed before the sums are set aside; `shares_sums`: do threads share them;
    `weights_first`: do neighbouring units have their weights in common, or their input; `pairs` of bf16 are multiplied
    and added up by the CPU's own instruction; `compact`: the input is copied group by group; `widens`: it is made
    floats first, for all units; `folds`: it is the convolution of `fold.folded`.
    """
    plain = folded(kernel) or kernel
    best = _with_tile(plain, machine, _best_tiles(plain, machine)[0])
    return best if plain is kernel else _altered(plain, best, folds=1)


def candidates(kernel: Kernel, machine: Machine) -> list[Schedule]:
    """The best tile for each number of vectors; with the best of all other units."""
    best_of_vectors: dict[int, Tile] = {}
    for tile in _best_tiles(kernel, machine):
        best_of_vectors.setdefault(tile.vectors, tile)
    best, plain = schedule(kernel, machine), folded(kernel) or kernel
    found = [best, *(_with_tile(kernel, machine, tile) for tile in best_of_vectors.values())]
    found.append(_altered(plain, best, weights_first=1 - best.number("weights_first")))
    found.append(_altered(plain, best, splits=1))
    if _can_be_compact(kernel):
        found.append(_altered(plain, best, compact=1 - best.number("compact")))
    for axis, tile_size in (("row_block", "tile_rows"), ("column_block", "tile_columns")):
        halves = ceil(best.number(axis) / best.number(tile_size) / 2) * best.number(tile_size)
        found.append(_altered(plain, best, **{axis: halves}))
    return list(dict.fromkeys(found))


def _altered(kernel: Kernel, schedule: Schedule, **choices: int) -> Schedule:
    return _with_choices(kernel, {name: schedule.number(name) for name, _ in schedule.choices} | choices)


def _with_choices(kernel: Kernel, choices: dict[str, int]) -> Schedule:
    """The schedule with these choices, and with `widens` where it pays beside them."""
    others = {name: number for name, number in choices.items() if name != "widens"}
    widens = {"widens": 1} if _widens(kernel, others) else {}
    return Schedule("cpu/direct.c", tuple(sorted({**others, **widens}.items())))


def _with_tile(kernel: Kernel, machine: Machine, tile: Tile) -> Schedule:
    loops, geometry = nest(kernel), kernel.geometry
    lanes, groups = machine.lanes, geometry.window.groups
    row_block, column_block = _block(kernel, machine, tile)
    blocks = groups * ceil(geometry.out_channels / groups / lanes / tile.vectors)
    depth, height, width = _outputs(loops)
    places = len(loops.phases) * depth * ceil(height / row_block) * ceil(width / column_block)
    weights_first = _weights_first(kernel, machine)
    units = UNITS if weights_first or len(loops.phases) > 1 else UNITS // 2
    terms = min(MAX_CHAIN, max(1, machine.l2_bytes // 2 // (4 * lanes * tile.vectors)))
    parts = _parts(kernel, tile, places * blocks)
    choices = {
        "column_block": column_block,
        "lanes": lanes,
        "row_block": row_block,
        "shares_sums": int(parts > 1),
        "splits": min(blocks, ceil(units / max(places, 1))),
        "terms": min(terms, ceil(_terms(kernel) / parts)),
        "tile_columns": tile.columns,
        "tile_rows": tile.rows,
        "vectors": tile.vectors,
        "weights_first": int(weights_first),
    }
    if has_pairs(kernel, machine):
        choices["pairs"] = 1
    if _can_be_compact(kernel):
        inputs = _input_bytes(kernel, row_block, column_block) // (4 * geometry.in_channels)
        choices["compact"] = int(inputs < COMPACT_INPUTS * row_block * column_block)
    return _with_choices(kernel, choices)


def _widens(kernel: Kernel, choices: dict[str, int]) -> bool:
    """Do units that share a block's input each need a copy of it in another type, which is small as a whole?"""
    is_shared = choices["splits"] > 1 and not (choices.get("compact") or nest(kernel).reads_outside)
    is_small = 4 * max(1, kernel.geometry.batch) * prod(kernel.geometry.in_shape[1:]) <= MOST_WIDENED
    return is_shared and is_small and converts(kernel.dtype, bool(choices.get("pairs")))


def converts(dtype: str, pairs: bool) -> bool:
    """Do tiles need a copy of the input, in another type? `pairs`: as in the choices of `schedule`."""
    return dtype != "f32" and not pairs


def has_pairs(kernel: Kernel, machine: Machine) -> bool:
    """May bf16 be multiplied as it is? The instructions round sums in their own way, and need channels in pairs."""
    even = kernel.geometry.in_channels // kernel.geometry.window.groups % 2 == 0
    return machine.bf16_dot and kernel.dtype == "bf16" and kernel.accuracy != "precise" and even


def _can_be_compact(kernel: Kernel) -> bool:
    """May the input be copied group by group? Pixels of all groups lie far apart, in few sets of a cache."""
    return kernel.geometry.window.groups > 1 and prod(nest(kernel).most_taps) > 1


def _rough(extent: int) -> int:
    """An outermost extent as schedules see it."""
    if extent <= SMALL_EXTENT:
        return extent
    return min(LARGE_EXTENT, 1 << (extent - 1).bit_length())


def _weights_first(kernel: Kernel, machine: Machine) -> bool:
    """Are the weights what neighbouring units should have in common, since they are larger than the input? Phases have
    none in common."""
    loops = nest(kernel)
    if len(loops.phases) > 1:
        return False
    elements = prod(_rough(n) if axis == loops.outermost else n for axis, n in enumerate(loops.in_size))
    weights = prod(kernel.geometry.weight_shape)
    return weights > max(elements * kernel.geometry.in_channels, machine.l2_bytes // 16)


def _terms(kernel: Kernel) -> int:
    """Products that are summed for an output, in the phase that has most of them."""
    taps = max(prod(len(axis.taps) for axis in phase) for phase in nest(kernel).phases)
    return max(1, taps * kernel.geometry.in_channels // kernel.geometry.window.groups)


def _parts(kernel: Kernel, tile: Tile, units: int) -> int:
    """How many threads' work the terms of an output are, where there are fewer outputs than work for many threads."""
    loops = nest(kernel)
    if len(loops.phases) > 1 or units >= MIN_UNITS:
        return 1
    products = prod(_outputs(loops)) * kernel.geometry.out_channels * _terms(kernel)
    return max(1, min(ceil(MIN_UNITS / units), products // units // UNIT_PRODUCTS))


def _outputs(loops: Nest) -> tuple[int, int, int]:
    """Outputs along the axes, of the phases that have most of them."""
    depth, height, width = (
        _rough(ceil(out / phases[0].period)) if axis == loops.outermost else ceil(out / phases[0].period)
        for axis, (out, phases) in enumerate(zip(loops.out_size, loops.axes, strict=True))
    )
    return depth, height, width


def _best_tiles(kernel: Kernel, machine: Machine) -> list[Tile]:
    """Tiles, from the one that takes the fewest cycles for all outputs."""
    loops, geometry = nest(kernel), kernel.geometry
    _, height, width = (min(*pair) for pair in zip(loops.least_outputs, _outputs(loops), strict=True))
    needed = ceil(geometry.out_channels / geometry.window.groups / machine.lanes)
    large = prod(_outputs(loops)) * len(loops.phases) * geometry.out_channels * 4 > LARGE_OUTPUT * machine.l2_bytes

    def cycles(tile: Tile) -> float:
        rows, columns = _tiles_along(loops, 1, tile.rows), _tiles_along(loops, 2, tile.columns)
        full, last = divmod(needed, tile.vectors)
        pixels = tile.rows * tile.columns

        def of_term(vectors: int) -> float:
            return term_cycles(pixels * vectors, vectors, pixels + vectors)

        of_channels = full * of_term(tile.vectors) + (of_term(last) if last else 0)
        if large and tile.vectors < min(needed, CONTIGUOUS_VECTORS):
            of_channels += SCATTERED_CYCLES * pixels * needed / _terms(kernel)
        return rows * columns * of_channels

    tiles = list(_tiles(height, width, min(needed, 4), machine.registers))
    small = [tile for tile in tiles if _input_bytes(kernel, tile.rows, tile.columns) <= MAX_SCRATCH]
    return sorted(small or [Tile(1, 1, 1)], key=cycles)


def _tiles(height: int, width: int, max_vectors: int, registers: int) -> Iterator[Tile]:
    """Tiles that fit into the registers: sums, a weight for each vector, an input element, and one to spare."""
    for vectors in range(1, max_vectors + 1):
        pixels = (registers - 2 - vectors) // vectors
        for columns in range(min(width, pixels), 0, -1):
            for rows in range(1, min(height, pixels // columns) + 1):
                yield Tile(rows, columns, vectors)


def _tiles_along(loops: Nest, axis: int, size: int) -> float:
    """Tiles along an axis in all of its phases, each counted by the share of its taps that meet input."""
    if axis == loops.outermost and loops.out_size[axis] > SMALL_EXTENT:
        return _outputs(loops)[axis] / size + 0.5
    return sum(_tiles_of_phase(phase, loops.in_size[axis], loops.out_size[axis], size) for phase in loops.axes[axis])


@cache
def _tiles_of_phase(phase: AxisPhase, extent: int, out: int, size: int) -> float:
    met = sum(start + reach >= 0 and start < extent for start, reach in _reads(phase, out, size))
    return met / max(1, len(phase.taps))


def _reads(phase: AxisPhase, out: int, size: int) -> Iterator[tuple[int, int]]:
    """For each tile along an axis and each tap: the first input position, and how far behind it the last one is."""
    outputs = phase.outputs(out)
    for first in range(0, outputs, size):
        start = min(first, outputs - size) * phase.stride + phase.offset
        for tap in range(len(phase.taps)):
            yield start + tap * phase.step, (size - 1) * phase.stride


def _copies(loops: Nest, tile: Tile) -> bool:
    """Does any tile read padding and input by the same tap, so that blocks are copied?"""
    return any(
        start < 0 <= start + reach or start < loops.in_size[axis] <= start + reach
        for axis, size in ((1, tile.rows), (2, tile.columns))
        for phase in loops.axes[axis]
        for start, reach in _reads(phase, loops.out_size[axis], size)
    )


def _block(kernel: Kernel, machine: Machine, tile: Tile) -> tuple[int, int]:
    """Rows and columns of the block of outputs that costs least beside the multiply-adds themselves.

    What is read only once, and copied for that, should not leave the first-level cache.
    """
    loops, geometry = nest(kernel), kernel.geometry
    depth, height, width = _outputs(loops)
    taps = loops.most_taps
    outputs_per_copy = prod(taps) * geometry.out_channels / geometry.window.groups
    conversion = CONVERSION if converts(kernel.dtype, has_pairs(kernel, machine)) else 0
    copies = conversion > 0 or _copies(loops, tile) or _can_be_compact(kernel)
    most_input = machine.l2_bytes * 3 // (8 if copies else 4)
    most_terms = min(MAX_CHAIN, _terms(kernel))
    weight_bytes = prod(geometry.weight_shape) * 4
    weights_first = _weights_first(kernel, machine)
    if conversion and prod(taps) == 1 and not weights_first:
        most_input = machine.l1_bytes // 2
    streaming = 0.5 if weight_bytes <= machine.l2_bytes // 2 else 3.2

    def cost(block: tuple[int, int]) -> float:
        """Of copying the input and of streaming the weights, relative to the multiply-adds."""
        pixels = block[0] * block[1]
        input_bytes = _input_bytes(kernel, *block)
        at_hand = input_bytes if copies else min(input_bytes, 4 * pixels * most_terms)  # of one part of the sums
        excess = max(1.0, at_hand / most_input, pixels / BLOCK_PIXELS, 100 * input_bytes / MAX_SCRATCH - 99)
        places = len(loops.phases) * depth * ceil(height / block[0]) * ceil(width / block[1])
        idle = 0.0 if weights_first else 0.01 * max(0.0, UNITS / places - 1)
        copied = input_bytes / geometry.in_channels / outputs_per_copy / pixels if copies else 0.0
        copied += conversion / (pixels * outputs_per_copy * geometry.in_channels)
        return copied + streaming / pixels + idle + (excess - 1)

    return min(product(_divisions(loops, 1, height, tile.rows), _divisions(loops, 2, width, tile.columns)), key=cost)


def _input_bytes(kernel: Kernel, rows: int, columns: int) -> int:
    """Of the input that a block of outputs reads, as floats."""
    loops = nest(kernel)
    taps_d, taps_h, _ = loops.most_taps
    _, high, wide = loops.inputs_of_block(rows, columns)
    return taps_d * min(high, rows * taps_h) * wide * kernel.geometry.in_channels * 4


def _divisions(loops: Nest, axis: int, extent: int, tile: int) -> list[int]:
    """Block sizes, in whole tiles, that divide an axis into equal blocks, or nearly so."""
    tiles = ceil(extent / tile)
    if axis == loops.outermost and extent > SMALL_EXTENT:
        return [tile << n for n in reversed(range(tiles.bit_length()))]
    return sorted({ceil(tiles / blocks) * tile for blocks in range(1, tiles + 1)}, reverse=True)
