"""Kernel and schedule -> the text of "cpu/winograd.c", and how it wants its weight."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import ceil
from typing import Any

from convjit.bilinear import Matrix, left_inverse
from convjit.emit.cpu.language import float_literal
from convjit.emit.cpu.packing import Packing
from convjit.emit.cpu.source import Source, common_variables, name_of
from convjit.emit.render import render
from convjit.emit.straight_line import Arithmetic, Code
from convjit.emit.straight_line import product as matrix_product
from convjit.geometry import Window
from convjit.kernel import Kernel
from convjit.schedule import Schedule
from convjit.schedule.cpu.tiling import Tiling, tiling
from convjit.schedule.cpu.winograd_plan import Winograd, has_few_channels
from convjit.schedule.nest import TRIVIAL, nest
from convjit.schedule.phases import phases_of_axes

_ARITHMETIC = Arithmetic(float_literal, "{0} * {1} + {2}")


def source(kernel: Kernel, schedule: Schedule) -> Source:
    """The C text of a convolution by Winograd's algorithm."""
    loops = nest(kernel)
    plan = Winograd.of(kernel, schedule)
    (depth,) = loops.axes[0]
    high, wide = plan.tilings
    variables = common_variables(kernel, loops)
    text = render(
        "cpu/winograd.c",
        **variables,
        outputs_of_phase=[
            f"({extent} + SHIFT_{name} + APART_{name} - 1) / APART_{name}" if plan.apart > 1 else extent
            for extent, name in zip(variables["out_extents"][1:], "HW", strict=True)
        ],
        blocks="APART * BLOCKS" if plan.apart > 1 else "BLOCKS",
        apart=plan.apart,
        residues=high.residues * wide.residues,
        d=depth,
        h=_axis(high),
        w=_axis(wide),
        growth=high.growth * wide.growth,
        growth_h=high.growth,
        positions=plan.positions,
        multiplications=high.multiplications * wide.multiplications,
        by_definition=high.by_definition * wide.by_definition,
        lanes=plan.lanes,
        vectors=plan.vectors,
        block=plan.block,
        tiles=plan.tiles,
        group=plan.group,
        chunk=plan.chunk,
        splits=plan.splits,
        packed=plan.packed,
        v_row=plan.v_row,
        v_position=plan.v_position,
        u_position=plan.u_position,
        m_position=plan.m_position,
    )
    return Source(text, name_of(kernel))


def packing(window: Window, weight: tuple[int, ...], schedule: Schedule) -> Packing:
    """How "cpu/winograd.c" reads a weight of shape (O, *kernel, C): transformed along the height, or both axes."""
    out_channels, *kernel, channels = weight
    block = schedule.number("lanes") * schedule.number("vectors")
    width = ceil(out_channels / block) * block
    axes = list(map(tuple, phases_of_axes(window, tuple(kernel))))
    while kernel[-2:] == [1, 1]:  # `nest` makes one axis of them
        kernel.pop()
    depth, of_height, of_width = [(TRIVIAL,)] * (3 - len(kernel)) + axes[: len(kernel)]
    few = has_few_channels(channels)
    high = tiling(of_height, 1, schedule.number("tile_h"), few)
    wide = tiling(of_width, 1, schedule.number("tile_w"), few)
    assert high is not None and wide is not None
    both = schedule["packed"] == "both"
    transformed = [(len(kernel) - 1, high)] + [(len(kernel), wide)] * both
    transforms = tuple((axis, t.weights) for axis, t in transformed if t.algorithm.positions > 1)
    rows, columns = high.multiplications, wide.multiplications if both else kernel[-1]
    order = _both if both else _height
    taps = tuple(
        tuple((d * rows + i) * columns + j for i, d, j in order(high, wide, depth[0].taps, *phase))
        for phase in product(range(high.apart), range(wide.apart))
    )
    return Packing(taps, 1, block, block, width, len(taps) * len(taps[0]) * width * channels, transforms)


def _both(high: Tiling, wide: Tiling, depth: tuple[int, ...], p: int, q: int) -> Iterator[tuple[int, int, int]]:
    """The order of a phase: position, tap along the depth, residue; as rows of the three axes."""
    of_position = list(product(depth, range(high.residues), range(wide.residues)))
    for i, j in product(range(high.algorithm.positions), range(wide.algorithm.positions)):
        for d, r, s in of_position:
            yield i * len(high.parts) + p + r, d, j * len(wide.parts) + q + s


def _height(high: Tiling, wide: Tiling, depth: tuple[int, ...], p: int, q: int) -> Iterator[tuple[int, int, int]]:
    """The order of a phase: position along the height, tap along the depth, element along the width."""
    for i, d, (element, _) in product(range(high.algorithm.positions), depth, wide.parts[q]):
        yield i * len(high.parts) + p, d, element


def _axis(tiling: Tiling) -> dict[str, Any]:
    """The variables of one axis: extents, taps, and the code of its transforms."""
    algorithm = tiling.algorithm
    of_part = tiling.weights if tiling.residues > 1 else algorithm.weights
    return {
        "reads": algorithm.reads,
        "positions": algorithm.positions,
        "outputs": algorithm.tile,
        "elements": len(of_part[0]),
        "residues": tiling.residues,
        "apart": tiling.apart,
        "shift": tiling.shift,
        "advance": tiling.advance,
        "offset": tiling.offset,
        "spread": tiling.spread,
        "stride": tiling.stride,
        "phases": [
            [(element, tiling.offset + offset * tiling.spread) for element, offset in taps] for taps in tiling.phases
        ],
        "inputs": _code(algorithm.inputs),
        "weights": _code(algorithm.weights),
        "restored": _restored(left_inverse(of_part)),
        "made": _code(algorithm.outputs),
    }


def _restored(matrix: Matrix) -> dict[str, Any]:
    """The code that finds the elements of a kernel from their transform, and which of its rows it reads."""
    code = _code(matrix)
    return {"lines": code.lines, "results": code.results, "used": {n for row in matrix for n, a in enumerate(row) if a}}


def _code(matrix: Matrix) -> Code:
    return matrix_product(matrix, [f"x{n}" for n in range(len(matrix[0]))], _ARITHMETIC)
