"""Kernel and schedule -> the text of "cpu/weight_gradient.c"."""

from __future__ import annotations

from math import ceil, prod
from typing import Any, cast

from convjit.emit.cpu.blocks import copied_row
from convjit.emit.cpu.source import C_TYPES, Source, extents_in_c, name_of, title_of
from convjit.emit.render import render
from convjit.kernel import Kernel
from convjit.schedule import Schedule
from convjit.schedule.cpu.weight_gradient import Along, Tile, is_merged, matrix
from convjit.schedule.nest import Nest, nest


def source(kernel: Kernel, schedule: Schedule) -> Source:
    """The C text of the gradient of a convolution with respect to its weight."""
    geometry, loops = kernel.geometry, nest(kernel)
    along, lanes = cast(Along, schedule["along"]), schedule.number("lanes")
    tile = Tile(matrix(kernel, along), schedule.number("vectors"), schedule.number("factors"))
    name = f"weight_gradient_{name_of(kernel)}"
    variables = {
        "title": f"The gradient of the weight of a {title_of(kernel)}",
        "name": name,
        "dtype": kernel.dtype,
        "c_type": C_TYPES[kernel.dtype],
        "element": "float",
        "dtypes": {kernel.dtype},
        "functions": set[str](),
        "lanes": lanes,
        "in_channels": geometry.in_channels,
        "out_channels": geometry.out_channels,
        "in_extents": extents_in_c(loops.in_size, loops.outermost, "call->in_extent"),
        "out_extents": extents_in_c(loops.out_size, loops.outermost, "call->out_extent"),
        "taps": loops.most_taps,
        "stride": [phases[0].stride for phases in loops.axes],
        "step": [phases[0].step for phases in loops.axes],
        "offset": [phases[0].offset for phases in loops.axes],
        "along": along,
        "groups": 1 if along == "channels" else geometry.window.groups,
        "merged": is_merged(kernel),
        "parts": schedule.number("parts"),
        "splits": schedule.number("splits"),
    }
    variables |= _tile_variables(kernel, tile, lanes) | _steps(kernel, loops)
    variables |= _block_variables(kernel, loops, schedule, tile)
    return Source(render("cpu/weight_gradient.c", **variables), name)


def _tile_variables(kernel: Kernel, tile: Tile, lanes: int) -> dict[str, Any]:
    """The tile functions: one for full blocks of vectors, one for the last block of a run if that is narrower."""
    of = tile.matrix
    groups = 1 if of.along == "channels" else kernel.geometry.window.groups
    last_vectors = (ceil(of.vector_extent / lanes) - 1) % tile.vectors + 1
    full = {"name": "tile", "vectors": tile.vectors, "lanes": lanes}
    last = {"name": "last_tile", "vectors": last_vectors, "lanes": (of.vector_extent - 1) % lanes + 1}
    blocks = tile.blocks(lanes)
    is_even = of.vector_extent % (tile.vectors * lanes) == 0
    return {
        "tiles": [full] if is_even else [full, last] if blocks > 1 else [last],
        "vectors": tile.vectors,
        "factors": tile.factors,
        "vector_blocks": blocks,
        "factor_blocks": ceil(of.factor_extent / tile.factors),
        "factor_extent": of.factor_extent,
        "run_length": of.vector_extent if of.along == "inputs" else of.factor_extent,
        "runs": of.runs // groups,
    }


def _steps(kernel: Kernel, loops: Nest) -> dict[str, int]:
    """Elements between rows and between planes; 0 where no address depends on them."""
    channels, outputs = kernel.geometry.in_channels, kernel.geometry.out_channels
    has_rows, has_planes = loops.outermost < 2, loops.outermost < 1
    return {
        "row_step": loops.in_size[2] * channels if has_rows else 0,
        "plane_step": prod(loops.in_size[1:]) * channels if has_planes else 0,
        "dy_row_step": loops.out_size[2] * outputs if has_rows else 0,
        "dy_plane_step": prod(loops.out_size[1:]) * outputs if has_planes else 0,
    }


def _block_variables(kernel: Kernel, loops: Nest, schedule: Schedule, tile: Tile) -> dict[str, Any]:
    """Blocks of pixels and the copies that they read, if they do."""
    geometry = kernel.geometry
    rows, columns, segments = (schedule.number(name) for name in ("row_block", "column_block", "segments"))
    _, copied_rows, wide = loops.inputs_of_block(rows, columns)
    row = copied_row(wide * geometry.in_channels)
    along, is_half = tile.matrix.along, kernel.dtype != "f32"
    copies_dy = is_half or along != "inputs"
    copies = is_half or along != "outputs" or loops.reads_outside
    of_pixel = geometry.out_channels
    if along != "inputs":
        groups = 1 if along == "channels" else geometry.window.groups
        of_pixel = groups * tile.blocks(schedule.number("lanes")) * tile.vectors * schedule.number("lanes")
    dy_floats = ceil(segments * rows * columns * of_pixel / 16) * 16 if copies_dy else 0
    input_floats = segments * loops.most_taps[0] * copied_rows * row if copies else 0
    return {
        "row_block": rows,
        "column_block": columns,
        "segments": segments,
        "copies": copies,
        "copies_dy": copies_dy,
        "pads": loops.reads_outside,
        "copied_rows": copied_rows,
        "copied_row": row,
        "dy_floats": dy_floats,
        "scratch_bytes": (dy_floats + input_floats) * 4,
    }
