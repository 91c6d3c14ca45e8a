"""A convolution by `metal/gather.metal`: implicit GEMM that reads everything straight from the device.

No threadgroup memory, no barrier: on M3 and later, whose caches are larger, that may be faster than `metal/gemm.metal`
(P. Turner, metal-flash-attention, loads matrices so). Each lane reads the two elements of a matrix that it holds.
"""

from __future__ import annotations

from math import prod
from typing import Any

from convjit.emit.metal.dispatch import Dispatch, arguments_of, only, results_of, write_text
from convjit.emit.metal.gemm import (
    axis_variables,
    box_title,
    clamped_row,
    group_offset,
    input_offset,
    matrix_variables,
    row_digits,
)
from convjit.emit.metal.indexing import index_of, shifted
from convjit.emit.metal.variables import epilogue_variables, geometry_variables
from convjit.kernel import Kernel
from convjit.schedule import Schedule
from convjit.schedule.metal.tile import FRAGMENT, Tiling, taps_of


def dispatches(kernel: Kernel, schedule: Schedule) -> tuple[Dispatch, ...]:
    """One kernel; its grid is boxes, blocks of channels, images."""
    tiling = Tiling.of(kernel, schedule)
    variables = _variables(Tiling.of(kernel.any_batch(), schedule))
    text = write_text(schedule.template, variables, arguments_of(kernel), results_of(kernel))
    grid = (
        tiling.boxes * tiling.tile.threads,
        tiling.blocks_n * kernel.geometry.window.groups,
        kernel.geometry.batch,
    )
    return only(text, kernel, grid, (tiling.tile.threads, 1, 1))


def _variables(tiling: Tiling) -> dict[str, Any]:
    kernel, tile, loops = tiling.kernel, tiling.tile, tiling.loops
    g = kernel.geometry
    axes = [axis_variables(tiling, i) for i in range(3)]
    real = [axis for axis in axes if not axis["trivial"]]
    walked = [axis for axis in real if axis["taps"] != 1]
    tested = [axis for axis in real if axis["inside"]]
    index = index_of(g)
    steps = [_times(f"k_{a['name']}", a["step"]) if a in walked else None for a in axes]
    return {
        **geometry_variables(kernel),
        "box_title": box_title(tile),
        "axes": real,
        "walked": walked,
        "tested": tested,
        "clamped_row": clamped_row(tile),
        "row_lines": _row_lines(tiling, axes, index),
        "row_offset": " + ".join(part for part in (input_offset(tiling, axes), group_offset(tiling)) if part) or "0",
        "tap_lines": [
            f"const {index} in_{a['name']} = from_{a['name']}[i]"
            + (f" + {_times('k_' + a['name'], a['step'])};" if a in walked else ";")
            for a in tested
        ]
        or ([""] if walked else []),
        "inside": " && ".join(test for a in tested for test in a["inside"]),
        "rows_can_be_outside": bool(tested),
        "tap_offset": _offset_of_tap(steps, loops.in_size, g.in_channels),
        "group_channels": tiling.group_channels,
        "padded_channels": tiling.padded_channels,
        "ragged": tiling.group_channels % FRAGMENT != 0,
        "block_weights": taps_of(loops.phases[0]) * tiling.padded_channels * tile.block_n,
        **matrix_variables(tiling, axes),
        **epilogue_variables(kernel, loops.out_size, loops.extras),
    }


def _times(number: str, factor: int) -> str:
    return f"{number} * {factor}" if factor > 1 else number


def _row_lines(tiling: Tiling, axes: list[dict[str, Any]], index: str) -> list[str]:
    """Where the first tap of row m reads along each axis."""
    lines: list[str] = []
    for axis, size, digit, phases in zip(
        axes, tiling.axes, row_digits(tiling.tile)[1:], tiling.loops.axes, strict=True
    ):
        if axis["trivial"]:
            continue
        output = f"first_{axis['name']}" + (f" + {digit}" if digit != "0" else "")
        position = f"({output}) * {size.stride}" if size.stride > 1 else output
        lines.append(f"const {index} in_{axis['name']} = {shifted(position, phases[0].offset)};")
    return lines


def _offset_of_tap(steps: list[str | None], in_size: tuple[int, ...], channels: int) -> str:
    """How far from the first tap the one of this iteration reads."""
    terms = [_times(step, prod(in_size[n + 1 :]) * channels) for n, step in enumerate(steps) if step is not None]
    return " + ".join(terms) or "0"
