"""The gradient of a convolution's weight by `metal/weight_gradient.metal` or `metal/weight_gradient_direct.metal`.

The first is an implicit GEMM on simdgroup matrices: output channels are rows, the input channels of all taps columns,
as the gradient lies in memory, and pixels of all images are summed. A few pixels at a time, the output's gradient and
what the columns meet go through threadgroup memory. In the second a thread sums a few taps of a row by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

from convjit.emit.metal import sum_parts
from convjit.emit.metal.dispatch import Dispatch, Size, arguments_of, only, padded, results_of, write_text
from convjit.emit.metal.indexing import digit, row_major, shifted
from convjit.emit.metal.language import TYPES
from convjit.emit.metal.variables import geometry_variables
from convjit.kernel import Kernel, identity_epilogue
from convjit.schedule import Schedule
from convjit.schedule.metal.tile import FRAGMENT
from convjit.schedule.metal.weight_gradient import Product, Tile
from convjit.schedule.nest import Nest, nest


def dispatches(kernel: Kernel, schedule: Schedule) -> tuple[Dispatch, ...]:
    """One kernel, whose grid is blocks of columns, blocks of output channels, parts; a second one adds up the parts."""
    product = Product(kernel, Tile.of(schedule))
    tile = product.tile
    grid = (product.column_blocks * tile.threads, product.row_blocks * product.groups, tile.parts)
    variables = _variables(Product(kernel.any_batch(), tile))
    return _in_parts(kernel, schedule, variables, grid, (tile.threads, 1, 1))


def direct_dispatches(kernel: Kernel, schedule: Schedule) -> tuple[Dispatch, ...]:
    """One kernel, whose grid is output channels, the rest of the weight, parts; a second one adds up the parts."""
    variables = _direct_variables(kernel.any_batch(), schedule)
    lanes, rows = schedule.number("lanes"), schedule.number("rows")
    out_channels = kernel.geometry.out_channels
    grid = (padded(out_channels, lanes), padded(variables["elements"], rows), schedule.number("parts"))
    return _in_parts(kernel, schedule, variables, grid, (lanes, rows, 1))


def _in_parts(
    kernel: Kernel, schedule: Schedule, variables: dict[str, Any], grid: Size, threadgroup: Size
) -> tuple[Dispatch, ...]:
    parts = schedule.number("parts")
    if parts == 1:
        text = write_text(schedule.template, variables, arguments_of(kernel), results_of(kernel))
        return only(text, kernel, grid, threadgroup)
    bare = replace(kernel, epilogue=identity_epilogue("f32"), result_dtypes=("f32",))
    text = write_text(schedule.template, variables, arguments_of(bare), results_of(bare))
    partial_shape = (parts, *kernel.result_shape)
    sums = Dispatch(text, (0, 1), ((partial_shape, "f32"),), grid, threadgroup)
    return sums, sum_parts.dispatch(kernel, parts)


def _variables(product: Product) -> dict[str, Any]:
    kernel, tile, groups = product.kernel, product.tile, product.groups
    g, loops = kernel.geometry, nest(kernel)
    *taps, channel = _digits("column", (*loops.most_taps, g.weight_shape[-1]))
    axes = _axes(loops, taps, loops.most_taps)
    ragged_columns = product.columns % tile.block_n != 0
    tests = [*([f"column < {product.columns}"] if ragged_columns else []), "pixel + p < pixels"]
    first_row = _times("group", product.rows) if groups > 1 else ""
    apart_n = tile.pixels_apart(tile.block_n, product.width)
    return {
        "simdgroups_m": tile.simdgroups_m,
        "simdgroups_n": tile.simdgroups_n,
        "tiles_m": tile.tiles_m,
        "tiles_n": tile.tiles_n,
        "block_m": tile.block_m,
        "block_n": tile.block_n,
        "mine_m": f"simdgroup_m * {tile.tiles_m * FRAGMENT} + " if tile.simdgroups_m > 1 else "",
        "mine_n": f"simdgroup_n * {tile.tiles_n * FRAGMENT} + " if tile.simdgroups_n > 1 else "",
        "pitch_m": product.pitch(tile.block_m),
        "pitch_n": product.pitch(tile.block_n),
        "width": product.width,
        "of_block_m": f"row_block * {tile.block_m} + " if product.row_blocks > 1 else "",
        "of_block_n": f"column_block * {tile.block_n} + " if product.column_blocks > 1 else "",
        "apart_m": tile.pixels_apart(tile.block_m, 4),
        "apart_n": apart_n,
        "chains": tile.chains,
        "groups": groups,
        "row_blocks": product.row_blocks,
        "rows": product.rows,
        "columns": product.columns,
        "ragged_rows": product.rows % tile.block_m != 0,
        "ragged_columns": ragged_columns,
        "axes": axes,
        "inside": " && ".join([*tests, *(test for axis in axes for test in axis["inside"])]),
        "gradient_offset": _sum(first_row, "channel"),
        "input_channel": _sum(_times("group", g.weight_shape[-1]) if groups > 1 else "", channel),
        "input_offset": _input_offset(loops, axes, g.in_channels),
        "first_row": _sum(_times("part_number", g.out_channels) if tile.parts > 1 else "", first_row),
        "result": _result(kernel, tile.parts, "sums[i][j].thread_elements()[e]"),
        **_pixel_variables(kernel, tile.parts, step=tile.pixels, apart=apart_n),
    }


def _direct_variables(kernel: Kernel, schedule: Schedule) -> dict[str, Any]:
    g, loops = kernel.geometry, nest(kernel)
    depth, height, width = loops.most_taps
    taps, parts, group_channels = schedule.number("taps"), schedule.number("parts"), g.weight_shape[-1]
    chunks = -(-width // taps)
    counts = (depth, height, chunks, group_channels)
    *starts, channel = _digits("element", counts)
    starts[2] = _times(starts[2], taps) if starts[2] else ""
    axes = _axes(loops, starts, (depth, height, chunks * taps))
    group_outputs = g.out_channels // g.window.groups
    group = f"channel / {group_outputs}" if group_outputs > 1 else "channel"
    apart = (height * width * group_channels, width * group_channels, group_channels)
    of_taps = (_times(start, by) for start, by in zip(starts, apart, strict=True) if start)
    return {
        "elements": prod(counts),
        "taps": taps,
        "taps_of_row": width,
        "ragged_taps": width % taps != 0,
        "first_tap": starts[2] or "0",
        "tap_step": loops.axes[2][0].step,
        "zeros": ", ".join(["0.0f"] * taps),
        "run": schedule.number("pixels"),
        "columns": prod(g.weight_shape[1:]),
        "group_channels": group_channels,
        "axes": [axis for axis in axes if axis["name"] != "w"],
        "width_axis": [axis for axis in axes if axis["name"] == "w"],
        "inside": " && ".join(test for axis in axes for test in axis["inside"]),
        "input_channel": _sum(_times(group, group_channels) if g.window.groups > 1 else "", channel) or "0",
        "input_offset": _input_offset(loops, axes, g.in_channels),
        "output_offset": _sum(_times("channel", prod(g.weight_shape[1:])), *of_taps, channel),
        "result": _result(kernel, parts, "sums[t]"),
        **_pixel_variables(kernel, parts, step=1, apart=1),
    }


def _pixel_variables(kernel: Kernel, parts: int, step: int, apart: int) -> dict[str, Any]:
    """What the macros of "metal/pixels.metal" need, and both templates.

    Args:
        kernel: whose pixels.
        parts: of a multiple of `step` pixels, but for the last.
        step: see there.
        apart: how far a thread moves at a time, in pixels.
    """
    extents = nest(kernel).out_size
    names = {i: f"out_{'dhw'[i]}" for i in range(3) if extents[i] > 1}
    inner = {i: prod(extents[i + 1 :]) for i in names}
    moves = {i: apart // inner[i] % extents[i] for i in names}
    by_image = apart // prod(extents) * prod(kernel.geometry.in_shape[1:])
    # An axis that is passed over as a whole carries nothing over.
    innermost = max((i for i, by in moves.items() if by), default=-1)
    return {
        **geometry_variables(kernel),
        "pixels_of_image": prod(extents),
        "parts": parts,
        "step": step,
        "places": [(names[i], inner[i], extents[i]) for i in names],
        "moves": [("input", by_image), *((names[i], by) for i, by in moves.items())],
        "carries": [(names[i], extents[i]) for i in sorted(names, reverse=True) if i <= innermost],
    }


def _axes(loops: Nest, taps: Sequence[str], tap_counts: Sequence[int]) -> list[dict[str, Any]]:
    """The axes along which pixels and taps meet different elements: where, and when that is outside of the input.

    Args:
        loops: of the convolution.
        taps: the tap along each axis that a thread begins with; empty if it is the first.
        tap_counts: how many taps there may be behind the first of all.
    """
    axes: list[dict[str, Any]] = []
    for i, name in enumerate("dhw"):
        in_size, out_size, (phase,) = loops.in_size[i], loops.out_size[i], loops.axes[i]
        if in_size == out_size == tap_counts[i] == 1 and phase.offset == 0:
            continue
        reach = shifted(_times(taps[i], phase.step), phase.offset) if taps[i] else ""
        start = _times(f"out_{name}", phase.stride) if out_size > 1 else ""
        last = (out_size - 1) * phase.stride + (tap_counts[i] - 1) * phase.step + phase.offset
        axes.append(
            {
                "name": name,
                "reach": reach,
                "position": _sum(start, f"reach_{name}") if reach else _shifted(start, phase.offset),
                "inside": [
                    *([f"in_{name} >= 0"] if phase.offset < 0 else []),
                    *([f"in_{name} < {in_size}"] if last >= in_size else []),
                ],
            }
        )
    return axes


def _input_offset(loops: Nest, axes: Sequence[dict[str, Any]], channels: int) -> str:
    """Where in an image the element at in_d, in_h, in_w of the thread's channel lies."""
    positions = {axis["name"]: f"in_{axis['name']}" for axis in axes}
    return _sum(row_major([positions.get(name) for name in "dhw"], loops.in_size, channels), "input_channel")


def _result(kernel: Kernel, parts: int, sum: str) -> str:
    """What is stored: partial sums are not rounded."""
    return sum if parts > 1 or kernel.dtype == "f32" else f"{TYPES[kernel.dtype]}({sum})"


def _digits(number: str, counts: Sequence[int]) -> list[str]:
    """All digits of a number in mixed radix; empty where there is one value only."""
    return [digit(number, counts, i) if counts[i] > 1 else "" for i in range(len(counts))]


def _shifted(text: str, by: int) -> str:
    return shifted(text, by) if text else str(by)


def _times(text: str, by: int) -> str:
    return f"{text} * {by}" if by > 1 else text


def _sum(*terms: str) -> str:
    """Of those that are not empty."""
    return " + ".join(filter(None, terms))
