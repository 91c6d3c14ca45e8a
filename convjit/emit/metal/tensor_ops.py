"""A convolution by `metal/tensor_ops.metal`: MetalPerformancePrimitives' convolution2d, summed in float registers.

Padding is where the kernel is laid (`set_offsets`): Apple's operation reads zeros outside of the input. Depth taps are
further operations into the same sums. What is unverified: see `convjit.schedule.metal.tensor_ops`; moreover, that an
input whose first element is aligned to its own size only, a view, may be a tensor.

The weight is packed as for the direct template: taps, input channels, output channels.
"""

from __future__ import annotations

from typing import Any

from convjit.emit.metal.dispatch import Dispatch, arguments_of, only, results_of, write_text
from convjit.emit.metal.indexing import row_major, shifted
from convjit.emit.metal.variables import epilogue_variables, geometry_variables
from convjit.kernel import Kernel
from convjit.schedule import Schedule
from convjit.schedule.metal.tensor_ops import TensorTile
from convjit.schedule.metal.tile import LANES
from convjit.schedule.nest import nest
from convjit.schedule.phases import AxisPhase

_HEADERS = ("#include <metal_tensor>", "#include <MetalPerformancePrimitives/MetalPerformancePrimitives.h>")


def dispatches(kernel: Kernel, schedule: Schedule) -> tuple[Dispatch, ...]:
    """One kernel; its grid is channel blocks, columns, and rows, depth and images together."""
    tile = TensorTile.of(schedule)
    filters, columns, rows = tile.blocks(kernel)
    text = write_text(schedule.template, _variables(kernel.any_batch(), tile), arguments_of(kernel), results_of(kernel))
    threads = tile.simdgroups * LANES
    grid = (filters * threads, columns, rows * nest(kernel).out_size[0] * kernel.geometry.batch)
    return only(text, kernel, grid, (threads, 1, 1))


def _variables(kernel: Kernel, tile: TensorTile) -> dict[str, Any]:
    g, loops = kernel.geometry, nest(kernel)
    deep, high, wide = loops.phases[0]
    depth, height, width = loops.in_size
    out_depth, out_height, out_width = loops.out_size
    row_blocks = tile.blocks(kernel)[2]
    names = [f"out_{n}" if size > 1 else None for n, size in zip("dhw", loops.out_size, strict=True)]
    return {
        **geometry_variables(kernel),
        "tables": _HEADERS,
        "block_n": tile.block_n,
        "columns": tile.columns,
        "rows": tile.rows,
        "simdgroups": tile.simdgroups,
        "row_blocks": row_blocks,
        "first_h": f"z % {row_blocks} * {tile.rows}" if row_blocks > 1 else "0",
        "depth": out_depth,
        "channels": g.in_channels,
        "width": width,
        "height": height,
        "plane_elements": height * width * g.in_channels,
        "kernel_width": len(wide.taps),
        "kernel_height": len(high.taps),
        "depth_taps": len(deep.taps),
        "strides": f"{wide.stride}, {high.stride}",
        "dilations": f"{wide.step}, {high.step}",
        "middle_w": _middle("first_w", wide),
        "middle_h": _middle("first_h", high),
        "in_d": _in_depth(deep, out_depth) if depth > 1 or out_depth > 1 or len(deep.taps) > 1 else "",
        "depth_outside": _depth_outside(deep, depth, out_depth),
        "out_width": out_width,
        "out_height": out_height,
        "pixel": row_major(names, loops.out_size) or "0",
        **epilogue_variables(kernel, loops.out_size, loops.extras),
    }


def _middle(first: str, axis: AxisPhase) -> str:
    """Where the middle of the kernel lies for the first output: behind it, if there are two."""
    middle = axis.offset + axis.span // 2
    return shifted(f"{first} * {axis.stride}" if axis.stride > 1 else first, middle)


def _in_depth(axis: AxisPhase, out_depth: int) -> str:
    parts = [f"out_d * {axis.stride}" if axis.stride > 1 else "out_d"] if out_depth > 1 else []
    if len(axis.taps) > 1:
        parts.append(f"k_d * {axis.step}" if axis.step > 1 else "k_d")
    return shifted(" + ".join(parts) or "0", axis.offset)


def _depth_outside(axis: AxisPhase, depth: int, out_depth: int) -> str:
    tests = ["in_d < 0"] if axis.offset < 0 else []
    if axis.last_read(out_depth) >= depth:
        tests.append(f"in_d >= {depth}")
    return " || ".join(tests)
