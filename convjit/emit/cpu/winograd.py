"""Kernel and schedule -> the text of "cpu/winograd.c", and how it wants its weight."""

from __future__ import annotations

from math import ceil
from typing import Any

from convjit.bilinear import Matrix, composed, left_inverse
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
        stages=plan.stages,
        v_row=plan.v_row,
        v_position=plan.v_position,
        u_position=plan.u_position,
        m_position=plan.m_position,
        images_at_once=plan.images_at_once,
    )
    return Source(text, name_of(kernel))


def packing(window: Window, weight: tuple[int, ...], schedule: Schedule) -> Packing:
    """How "cpu/winograd.c" reads a weight of shape (O, *kernel, C): transformed along the height."""
    out_channels, *kernel, channels = weight
    block = schedule.number("lanes") * schedule.number("vectors")
    width = ceil(out_channels / block) * block
    axes = phases_of_axes(window, tuple(kernel))
    while kernel[-2:] == [1, 1]:  # `nest` makes one axis of them
        kernel.pop()
    height = len(kernel) - 2
    if height < 0:
        algorithm, depth_taps = composed(1, (((0, 0),),), 1), (0,)
    else:
        tiles = tiling(tuple(axes[height]), 1, schedule.number("tile_h"))
        assert tiles is not None
        algorithm, depth_taps = tiles.algorithm, axes[0][0].taps if height > 0 else (0,)
    taps = tuple(
        (d * algorithm.positions + position) * kernel[-1] + w
        for position in range(algorithm.positions)
        for d in depth_taps
        for w in range(kernel[-1])
    )
    transform = (1 + height, algorithm.weights) if algorithm.positions > 1 else None
    return Packing((taps,), 1, block, block, width, len(taps) * width * channels, transform)


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
        "count": tiling.count,
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
