"""A depthwise convolution by `metal/depthwise.metal`: a thread computes a patch of outputs in registers.

Lanes run along channels, so that they read and write neighbours. Padding is never read: rows are left out, columns
are zero. Each grid of a dilated or transposed convolution (see `Axis`) is a plain one; they are in
thread_position_in_grid.z, beside the images.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod
from typing import Any

from convjit.emit.metal.dispatch import Dispatch, arguments_of, only, padded, results_of, write_text
from convjit.emit.metal.indexing import digit, row_major, shifted
from convjit.emit.metal.variables import epilogue_variables, geometry_variables
from convjit.kernel import Kernel
from convjit.schedule import Schedule
from convjit.schedule.metal.depthwise import Axis, Patch, axes_of, in_parts, inputs_of, patch_counts, pending
from convjit.schedule.nest import nest


def dispatches(kernel: Kernel, schedule: Schedule) -> tuple[Dispatch, ...]:
    """One kernel; its grid is blocks of channels, patches, images by grids."""
    geometry, patch, axes = kernel.geometry, Patch.of(schedule), axes_of(kernel)
    variables = _variables(kernel.any_batch(), patch, axes)
    text = write_text(schedule.template, variables, arguments_of(kernel), results_of(kernel))
    grid = (
        padded(geometry.out_channels // patch.channels, patch.lanes),
        padded(prod(patch_counts(axes, patch.rows, patch.columns)), patch.patches),
        geometry.batch * prod(len(axis.grids) for axis in axes),
    )
    return only(text, kernel, grid, (patch.lanes, patch.patches, 1))


def _variables(kernel: Kernel, patch: Patch, axes: tuple[Axis, Axis, Axis]) -> dict[str, Any]:
    g, loops = kernel.geometry, nest(kernel)
    counts = patch_counts(axes, patch.rows, patch.columns)
    multiplier = g.out_channels // g.in_channels
    inputs = inputs_of(kernel, patch.channels)
    described = [_axis(axes, i, counts, size) for i, size in enumerate((1, patch.rows, patch.columns))]
    return {
        **geometry_variables(kernel),
        "affine": _affine,
        "indented": _indented,
        "pending": lambda taps: pending(taps, axes[1].stride),
        "axes": described,
        "channels": patch.channels,
        "rows": patch.rows,
        "columns": patch.columns,
        "rolling": patch.rolling,
        "in_parts": in_parts(axes),
        "chunk": patch.taps,
        "patches": prod(counts),
        "grids": prod(len(axis.grids) for axis in axes),
        "variants": _variants(axes),
        "inputs": inputs,
        "input_of_c": "0" if inputs == 1 else f"c / {multiplier}" if multiplier > 1 else "c",
        "in_channel": f"first_channel / {multiplier}" if multiplier > 1 else "first_channel",
        # The first column of a row may be outside, even of an input of one column.
        "input_position": row_major([*_where_several(["in_d", "in_h"], loops.in_size[:2]), "in_w"], loops.in_size),
        "tap": _offset([axis["tap"] for axis in described], [axis.packed for axis in axes]),
        "pixel": _offset(["out_d", "out_h", "out_w"], loops.out_size),
        "tables": [_table(axis, name) for axis, name in zip(axes, "dhw", strict=True) if len(axis.grids) > 1],
        **epilogue_variables(kernel, loops.out_size, loops.extras),
    }


def _offset(positions: Sequence[str], sizes: Sequence[int]) -> str:
    return row_major(_where_several(positions, sizes), sizes) or "0"


def _where_several(positions: Sequence[str], sizes: Sequence[int]) -> list[str | None]:
    """An axis with one element needs no position: it is 0."""
    return [position if size > 1 else None for position, size in zip(positions, sizes, strict=True)]


def _axis(axes: Sequence[Axis], i: int, counts: Sequence[int], patch: int) -> dict[str, Any]:
    """Numbers of an axis, and what depends on its grid: a literal, or the name of what is read from a table."""
    axis, name = axes[i], "dhw"[i]
    several, grid = len(axis.grids) > 1, axis.grids[0]
    low, high = axis.ends(patch)
    tests = [f"in_{name} >= 0"] * (low < 0) + [f"in_{name} < {axis.in_size}"] * (high >= axis.in_size)
    return {
        "name": name,
        "trivial": i == 0 and axis.in_size == axis.out_size == axis.packed == 1 and grid.offset == 0,
        "number": digit("patch", counts, i),
        "several": several,
        "grid": digit("grid", [len(axis.grids) for axis in axes], i),
        "first": f"first_{name}" if several else grid.first,
        "offset": f"offset_{name}" if several else grid.offset,
        "tap": f"(start_{name} + k_{name})" if several else f"k_{name}",
        "in_size": axis.in_size,
        "out_size": axis.out_size,
        "period": axis.period,
        "stride": axis.stride,
        "step": axis.step,
        "below": low < 0,
        "beyond": high >= axis.in_size,
        "inside": " && ".join(tests),
        "ragged": several or axis.outputs % patch > 0,
    }


def _affine(number: str, scale: int, offset: int | str) -> str:
    """number * scale + offset, as one writes it."""
    if number == "0":
        return str(offset)
    text = number if scale == 1 else f"{number} * {scale}" if _is_one(number) else f"({number}) * {scale}"
    if offset in (0, "0"):
        return text
    return f"{offset} + {text}" if isinstance(offset, str) else shifted(text, offset)


def _is_one(text: str) -> bool:
    """Is it one operand, of which a product is a product?"""
    return " " not in text or (text.startswith("(") and text.endswith(")") and text.count("(") == 1)


def _indented(text: str) -> str:
    """The lines of `text` that are not empty, two spaces for each brace they are in."""
    lines: list[str] = []
    depth = 1
    for line in filter(None, map(str.strip, text.splitlines())):
        closes = line.startswith("}")
        lines.append("  " * (depth - closes) + line)
        depth += line.count("{") - line.count("}")
    return "\n".join(lines)


def _variants(axes: tuple[Axis, Axis, Axis]) -> list[dict[str, Any]]:
    """The numbers of taps along the axes that grids have, each with the condition that tells it."""
    counts = [sorted({grid.taps for grid in axis.grids}, reverse=True) for axis in axes]
    variants: list[dict[str, Any]] = []
    for taps in product(*counts):
        if 0 in taps:
            continue
        tests = [f"taps_{n} == {k}" for n, k, some in zip("dhw", taps, counts, strict=True) if len(some) > 1]
        variants.append({"taps": taps, "condition": " && ".join(tests)})
    return variants


def _table(axis: Axis, name: str) -> str:
    """First output, input of its first tap, number of taps and first packed tap of each grid of an axis."""
    rows = ", ".join(f"{{{g.first}, {g.offset}, {g.taps}, {g.start}}}" for g in axis.grids)
    return f"constant constexpr int cj_grids_{name}[{len(axis.grids)}][4] = {{{rows}}};"
