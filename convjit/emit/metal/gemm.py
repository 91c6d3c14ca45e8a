"""A convolution by `metal/gemm.metal`: implicit GEMM on simdgroup matrices.

A threadgroup computes a box of pixels by a block of channels. The input that the box needs, a few channels of it at a
time and with the halo of all taps where that fits, goes through threadgroup memory; weights are packed as 8x8 matrices
in the order in which they are read, and come straight from the device. Each phase of a transposed convolution is a
convolution of its own (threadgroup_position_in_grid.z), with as many taps as meet elements.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

from convjit.emit.metal import sum_parts
from convjit.emit.metal.dispatch import Dispatch, MetalText, arguments_of, only, results_of, write_text
from convjit.emit.metal.indexing import digit, index_of, row_major, shifted, table
from convjit.emit.metal.variables import epilogue_variables, geometry_variables
from convjit.kernel import Kernel, identity_epilogue
from convjit.schedule import Schedule
from convjit.schedule.metal.tile import Axis, Tile, Tiling, taps_of
from convjit.schedule.phases import AxisPhase


def dispatches(kernel: Kernel, schedule: Schedule) -> tuple[Dispatch, ...]:
    """One kernel; with `parts`, a second one that adds them up and does the epilogue."""
    tiling = Tiling.of(kernel, schedule)
    tile, geometry = tiling.tile, kernel.geometry
    grid = (
        tiling.boxes * tile.threads,
        tiling.blocks_n * geometry.window.groups,
        tiling.image_blocks * len(tiling.loops.phases) * tile.parts,
    )
    threadgroup = (tile.threads, 1, 1)
    # Loops are those of the whole kernel in either case: whether axes are one depends on the extras.
    one = Tiling.of(kernel.any_batch(), schedule)
    if tile.parts == 1:
        return only(_text(one, one.kernel, schedule.template), kernel, grid, threadgroup)
    bare = replace(one.kernel, extras=(), epilogue=identity_epilogue("f32"), result_dtypes=("f32",))
    partial_shape = (geometry.batch, tile.parts, *geometry.out_shape[1:])
    sums = Dispatch(_text(one, bare, schedule.template), (0, 1), ((partial_shape, "f32"),), grid, threadgroup)
    return sums, sum_parts.dispatch(kernel, tile.parts)


def _text(tiling: Tiling, kernel: Kernel, template: str) -> MetalText:
    """`kernel` differs from the tiling's at most in its epilogue."""
    return write_text(template, _variables(tiling, kernel), arguments_of(kernel), results_of(kernel))


def _variables(tiling: Tiling, kernel: Kernel) -> dict[str, Any]:
    tile, loops = tiling.tile, tiling.loops
    phases = len(loops.phases)
    axes = [axis_variables(tiling, i) for i in range(3)]
    walked = [axis for axis in axes if not axis["trivial"]]
    taps = " * ".join(str(a["taps"]) for a in walked if a["taps"] != 1) or "1"
    ragged = tiling.group_channels % 4 != 0
    tests = [test for a in walked for test in a["inside"]]
    if tile.images > 1:
        tests.append("image < all_images")
    if not ragged and tiling.group_channels % tile.channels:
        tests.append(f"c + part < {tiling.group_channels}")
    return {
        **geometry_variables(kernel),
        "box_title": box_title(tile),
        "axes": walked,
        "outer": [a for a in walked if a["taps"] != 1 and not a["halo"]],
        "inner": [a for a in walked if a["taps"] != 1 and a["halo"]],
        "phases": phases,
        "parts": tile.parts,
        "images": tile.images,
        "threads": tile.threads,
        "positions": tiling.positions,
        "pitch": tiling.pitch,
        "channels": tile.channels,
        "padded_channels": tiling.padded_channels,
        "channels_of_part": tiling.channels_of_part,
        "tap_count": taps,
        "steps_vary": tiling.padded_channels % tile.channels != 0,
        "ragged": ragged,
        "last_channel": tiling.group_channels,
        "inside": " && ".join(tests) or "true",
        "input_offset": " + ".join(part for part in (input_offset(tiling, axes), group_offset(tiling)) if part) or "0",
        "phase_lines": [line for a in walked for line in a["phase_lines"]],
        "can_be_empty": " || ".join(a["empty"] for a in walked if a["empty"]),
        "clamped_row": clamped_row(tile),
        "row_offset": row_offset(tiling),
        "weight_offset": _weight_offset(tiling, taps),
        "tables": _tables(tiling),
        **matrix_variables(tiling, axes),
        **epilogue_variables(kernel, loops.out_size, loops.extras[: len(kernel.extras)]),
    }


def axis_variables(tiling: Tiling, i: int) -> dict[str, Any]:
    """One axis of the nest: expressions for where its outputs and inputs are."""
    loops, axis = tiling.loops, tiling.axes[i]
    name = "dhw"[i]
    phases, width = loops.axes[i], tiling.tile.box[i]
    in_size, out_size = loops.in_size[i], loops.out_size[i]
    offsets = [p.offset for p in phases]
    varies = len(offsets) > 1
    first = digit("box", [a.boxes for a in tiling.axes], i)
    first = f"{first} * {width}" if axis.boxes > 1 and width > 1 else first
    origin = f"first_{name}" + (f" * {axis.stride}" if axis.stride > 1 else "")
    origin = f"{origin} + offset_{name}" if varies else shifted(origin, offsets[0])
    last = (axis.boxes * width - 1) * axis.stride + (axis.taps - 1) * axis.step + max(offsets)
    extents = [tiling.tile.images, *(a.extent for a in tiling.axes)]
    place = digit("position", extents, 1 + i)
    return {
        "name": name,
        "trivial": in_size == out_size == axis.taps == 1 and not varies and offsets[0] == 0,
        "taps": f"taps_{name}" if varies else axis.taps,
        "step": axis.step,
        "halo": axis.halo,
        "extent": axis.extent,
        "place": f"{place} * {axis.spacing}" if axis.spacing > 1 and axis.extent > 1 else place,
        "first": first,
        "origin": origin,
        "tap_offset": axis.step * prod(extents[2 + i :]) * tiling.pitch,
        "inside": [
            *([f"in_{name} >= 0"] if min(offsets) < 0 else []),
            *([f"in_{name} < {in_size}"] if last >= in_size else []),
        ],
        "phase_lines": _phase_lines(tiling, i) if varies else [],
        "empty": _empty(axis, phases, name, width, out_size) if varies else "",
    }


def _phase_lines(tiling: Tiling, i: int) -> list[str]:
    counts = [len(phases) for phases in tiling.loops.axes]
    name = "dhw"[i]
    return [
        f"const int phase_{name} = {digit('phase', counts, i)};",
        f"const int taps_{name} = cj_taps_{name}[phase_{name}];",
        f"const int offset_{name} = cj_offset_{name}[phase_{name}];",
    ]


def _empty(axis: Axis, phases: tuple[AxisPhase, ...], name: str, width: int, out_size: int) -> str:
    """When a box has no output of its phase."""
    if (axis.boxes - 1) * width < min(p.outputs(out_size) for p in phases):
        return ""
    return f"first_{name} * {len(phases)} + phase_{name} >= {out_size}"


def _tables(tiling: Tiling) -> list[str]:
    """The phases, as constants in front of the kernel."""
    lines: list[str] = []
    for name, phases in zip("dhw", tiling.loops.axes, strict=True):
        if len(phases) > 1:
            lines += table(f"cj_taps_{name}", [len(p.taps) for p in phases])
            lines += table(f"cj_offset_{name}", [p.offset for p in phases])
    if lines:
        counts = [taps_of(phase) for phase in tiling.loops.phases]
        lines += table("cj_taps_before", [sum(counts[:n]) for n in range(len(counts))])
    return lines


def input_offset(tiling: Tiling, axes: list[dict[str, Any]]) -> str:
    """Where in an image the first channel at in_d, in_h, in_w lies."""
    positions = [None if axis["trivial"] else f"in_{axis['name']}" for axis in axes]
    return row_major(positions, tiling.loops.in_size, tiling.kernel.geometry.in_channels)


def group_offset(tiling: Tiling) -> str:
    """The first input channel of the block's group; empty if there is one group."""
    if tiling.kernel.geometry.window.groups == 1:
        return ""
    return f"{_group(tiling)} * {tiling.group_channels}"


def _group(tiling: Tiling) -> str:
    return f"block / {tiling.blocks_n}" if tiling.blocks_n > 1 else "block"


def _weight_offset(tiling: Tiling, taps: str) -> str:
    """Where the weights of a phase, group and block of channels begin."""
    loops = tiling.loops
    blocks = tiling.blocks_n * tiling.kernel.geometry.window.groups
    size = tiling.padded_channels * tiling.tile.block_n
    if len(loops.phases) == 1:
        return f"size_t(block) * {taps_of(loops.phases[0]) * size}u"
    before = f"cj_taps_before[phase] * {blocks} + " if blocks > 1 else "cj_taps_before[phase] + "
    return f"size_t({before}block * {taps}) * {size}u"


def clamped_row(tile: Tile) -> str:
    """The row of a lane's matrix; rows behind the box read those of its last pixel."""
    pixels = tile.images * prod(tile.box)
    row = _row(tile)
    return f"metal::min({row}, {pixels - 1})" if tile.block_m > pixels else row


def _row(tile: Tile) -> str:
    matrix = "i"
    if tile.simdgroups_m > 1:
        matrix = f"simdgroup_m * {tile.tiles_m} + i" if tile.tiles_m > 1 else "simdgroup_m"
    elif tile.tiles_m == 1:
        return "fragment_row"
    return f"({matrix}) * 8 + fragment_row" if " " in matrix else f"{matrix} * 8 + fragment_row"


def row_digits(tile: Tile) -> list[str]:
    """Image, depth, row and column of the output in row m of the box."""
    extents = (tile.images, *tile.box)
    return [digit("m", extents, n) for n in range(len(extents))]


def row_offset(tiling: Tiling) -> str:
    """Where the first tap of row m lies in threadgroup memory."""
    digits = row_digits(tiling.tile)
    positions: list[str | None] = [digits[0] if tiling.tile.images > 1 else None]
    for axis, place in zip(tiling.axes, digits[1:], strict=True):
        scale = f" * {axis.stride}" if axis.halo and axis.stride > 1 and place != "0" else ""
        positions.append(None if axis.extent == 1 else f"{place}{scale}")
    sizes = (tiling.tile.images, *(axis.extent for axis in tiling.axes))
    return row_major(positions, sizes, tiling.pitch) or "0"


def matrix_variables(tiling: Tiling, axes: list[dict[str, Any]]) -> dict[str, Any]:
    """What the macros of "metal/matrix.metal" need."""
    tile, g, loops = tiling.tile, tiling.kernel.geometry, tiling.loops
    groups = g.window.groups
    ragged = tiling.group_filters % tile.block_n != 0
    if groups == 1:
        first = "block" if tiling.blocks_n > 1 else ""
        first = f"{first} * {tile.block_n} + " if first else ""
        end = str(tiling.group_filters)
    else:
        inner = f" + block % {tiling.blocks_n} * {tile.block_n}" if tiling.blocks_n > 1 else ""
        group = _group(tiling)
        first = f"{group} * {tiling.group_filters}{inner} + "
        end = f"({group} + 1) * {tiling.group_filters}"

    def mine(size: int) -> str:
        return f"simdgroup_n * {size} + " if tile.simdgroups_n > 1 else ""

    digits = row_digits(tile)
    lines: list[str] = []
    outside: list[str] = []
    if tile.block_m > tile.images * prod(tile.box):
        outside.append(f"m >= {tile.images * prod(tile.box)}")
    if tile.images > 1:
        lines.append(f"const size_t image = first_image + size_t({digits[0]});")
        outside.append("image >= all_images")
    for i, axis in enumerate(axes):
        if loops.out_size[i] == tile.box[i] == 1:
            continue
        period = len(loops.axes[i])
        output = f"first_{axis['name']}" + (f" + {digits[1 + i]}" if digits[1 + i] != "0" else "")
        if period > 1:
            output = f"({output}) * {period} + phase_{axis['name']}"
        lines.append(f"const {index_of(g)} out_{axis['name']} = {output};")
        smallest = min(p.outputs(loops.out_size[i]) for p in loops.axes[i])
        if tiling.axes[i].boxes * tile.box[i] > smallest:
            outside.append(f"out_{axis['name']} >= {loops.out_size[i]}")
    positions = [f"out_{a['name']}" if n > 1 else None for a, n in zip(axes, loops.out_size, strict=True)]
    return {
        "simdgroups_m": tile.simdgroups_m,
        "simdgroups_n": tile.simdgroups_n,
        "tiles_m": tile.tiles_m,
        "tiles_n": tile.tiles_n,
        "block_n": tile.block_n,
        "row": _row(tile),
        "out_lines": lines,
        "row_outside": " || ".join(outside),
        "pixel": row_major(positions, loops.out_size) or "0",
        "first_channel": f"{first}{mine(tile.tiles_n * 8)}fragment_column",
        "matrix_of_lane": f"{mine(tile.tiles_n * 64)}lane * 2",
        "end_channel": end,
        "ragged_filters": ragged,
        "odd_filters": ragged and tiling.group_filters % 2 == 1,
        "image_of_row": f"(image * {tile.parts}u + size_t(part_number))" if tile.parts > 1 else "image",
    }


def box_title(tile: Tile) -> str:
    box = "x".join(str(n) for n in tile.box if n > 1) or "1"
    of = f" of {tile.images} images" if tile.images > 1 else ""
    return f"{box} pixels{of}"
