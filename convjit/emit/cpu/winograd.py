"""Kernel and schedule -> the text of "cpu/winograd.c", and how it wants its weight."""

from __future__ import annotations

from math import ceil
from typing import Any

from convjit.bilinear import Matrix, left_inverse
from convjit.emit.cpu.language import float_literal
from convjit.emit.cpu.packing import Packing
from convjit.emit.cpu.source import Source, common_variables, name_of
from convjit.emit.render import render
from convjit.emit.straight_line import Arithmetic, Code, product
from convjit.geometry import Window
from convjit.kernel import Kernel
from convjit.schedule import Schedule
from convjit.schedule.cpu.winograd import Tiling, Winograd, tiling
from convjit.schedule.nest import nest
from convjit.schedule.phases import phases_of_axes

_ARITHMETIC = Arithmetic(float_literal, "{0} * {1} + {2}")


def source(kernel: Kernel, schedule: Schedule) -> Source:
    """The C text of a convolution by Winograd's algorithm."""
    loops = nest(kernel)
    plan = Winograd.of(kernel, schedule)
    (depth,) = loops.axes[0]
    elements_h, elements_w = (tiling.algorithm.taps for tiling in plan.tilings)
    text = render(
        "cpu/winograd.c",
        **common_variables(kernel, loops),
        d=depth,
        h=_axis(plan.tilings[0]),
        w=_axis(plan.tilings[1]),
        elements_h=elements_h,
        elements_w=elements_w,
        positions=plan.positions,
        multiplications=plan.multiplications,
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
    axes = phases_of_axes(window, tuple(kernel))
    while kernel[-2:] == [1, 1]:  # `nest` makes one axis of them
        kernel.pop()
    names = ["tile_h", "tile_w"] if schedule["packed"] == "both" else ["tile_h"]
    depth_taps = axes[0][0].taps if len(kernel) > 2 else (0,)
    extents, transforms = [1, kernel[-1]], list[tuple[int, Matrix]]()
    for number, name in enumerate(names):
        axis = len(kernel) - 2 + number
        tiles = tiling(tuple(axes[axis]), 1, schedule.number(name)) if axis >= 0 else None
        if tiles and tiles.algorithm.positions > 1:
            extents[number] = tiles.algorithm.positions
            transforms.append((1 + axis, tiles.algorithm.weights))
    high, wide = extents
    if schedule["packed"] == "both":
        taps = tuple((d * high + i) * wide + j for i in range(high) for j in range(wide) for d in depth_taps)
    else:
        taps = tuple((d * high + i) * wide + j for i in range(high) for d in depth_taps for j in range(wide))
    return Packing((taps,), 1, block, block, width, len(taps) * width * channels, tuple(transforms))


def _axis(tiling: Tiling) -> dict[str, Any]:
    """The variables of one axis: extents, taps, and the code of its transforms."""
    algorithm = tiling.algorithm
    return {
        "reads": algorithm.reads,
        "positions": algorithm.positions,
        "outputs": algorithm.tile,
        "advance": tiling.advance,
        "offset": tiling.offset,
        "spread": tiling.spread,
        "stride": tiling.stride,
        "phases": [
            [(element, tiling.offset + offset * tiling.spread) for element, offset in taps] for taps in tiling.phases
        ],
        "inputs": _code(algorithm.inputs),
        "weights": _code(algorithm.weights),
        "restored": _restored(left_inverse(algorithm.weights)),
        "made": _code(algorithm.outputs),
    }


def _restored(matrix: Matrix) -> dict[str, Any]:
    """The code that finds the elements of a kernel from their transform, and which of its rows it reads."""
    code = _code(matrix)
    return {"lines": code.lines, "results": code.results, "used": {n for row in matrix for n, a in enumerate(row) if a}}


def _code(matrix: Matrix) -> Code:
    return product(matrix, [f"x{n}" for n in range(len(matrix[0]))], _ARITHMETIC)
