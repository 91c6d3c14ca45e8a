"""Kernel and schedule -> the text of "cpu/winograd.c", and how it wants its weight."""

from __future__ import annotations

from math import ceil, prod
from typing import Any

from convjit.bilinear import Matrix
from convjit.emit.cpu.language import float_literal
from convjit.emit.cpu.packing import Packing
from convjit.emit.cpu.source import Source, common_variables, name_of
from convjit.emit.render import render
from convjit.emit.straight_line import Arithmetic, Code, product
from convjit.geometry import Window
from convjit.kernel import Kernel
from convjit.schedule import Schedule
from convjit.schedule.cpu.winograd import Tiling, Winograd
from convjit.schedule.nest import nest

_ARITHMETIC = Arithmetic(float_literal, "{0} * {1} + {2}")

_WEIGHT_UNIT = 16
"""Terms of the weights of a block of outputs that a thread transforms at a time."""


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
        shares=plan.shares,
        v_row=plan.v_row,
        v_position=plan.v_position,
        u_position=plan.u_position,
        m_position=plan.m_position,
        images_at_once=plan.images_at_once,
        weight_unit=_WEIGHT_UNIT,
    )
    return Source(text, name_of(kernel))


def packing(window: Window, weight: tuple[int, ...], schedule: Schedule) -> Packing:
    """How "cpu/winograd.c" reads a weight of shape (O, *kernel, C): as it is, in blocks of outputs."""
    out_channels, *kernel, channels = weight
    block = schedule.number("lanes") * schedule.number("vectors")
    taps = tuple(range(prod(kernel)))
    width = ceil(out_channels / block) * block
    return Packing((taps,), 1, block, block, width, len(taps) * width * channels)


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
        "made": _code(algorithm.outputs),
    }


def _code(matrix: Matrix) -> Code:
    return product(matrix, [f"x{n}" for n in range(len(matrix[0]))], _ARITHMETIC)
