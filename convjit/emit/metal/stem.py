"""A convolution by `metal/stem.metal`: few input channels, as behind an image, on simdgroup matrices.

All taps of all channels of a pixel are one row of a matrix, so that little of it is padding. The input that the box of
a threadgroup reads, halo included, lies in threadgroup memory as it does in the image; a table tells where in it each
term of a sum is.
"""

from __future__ import annotations

from itertools import product
from typing import Any

from convjit.emit.metal.dispatch import Dispatch, arguments_of, only, results_of, write_text
from convjit.emit.metal.gemm import axis_variables, box_title, clamped_row, input_offset, matrix_variables, row_offset
from convjit.emit.metal.indexing import table
from convjit.emit.metal.variables import epilogue_variables, geometry_variables
from convjit.kernel import Kernel
from convjit.schedule import Schedule
from convjit.schedule.metal.tile import Tiling, taps_of


def dispatches(kernel: Kernel, schedule: Schedule) -> tuple[Dispatch, ...]:
    """One kernel; its grid is boxes, blocks of channels, images."""
    tiling = Tiling.of(kernel, schedule)
    text = write_text(
        schedule.template, _variables(Tiling.of(kernel.any_batch(), schedule)), arguments_of(kernel), results_of(kernel)
    )
    grid = (tiling.boxes * tiling.tile.threads, tiling.blocks_n, tiling.image_blocks)
    return only(text, kernel, grid, (tiling.tile.threads, 1, 1))


def _variables(tiling: Tiling) -> dict[str, Any]:
    kernel, tile, loops = tiling.kernel, tiling.tile, tiling.loops
    g = kernel.geometry
    axes = [axis_variables(tiling, i) for i in range(3)]
    terms = taps_of(loops.phases[0]) * g.in_channels
    padded_terms = tiling.terms(taps_of(loops.phases[0]))
    tests = [test for axis in axes for test in axis["inside"]]
    if tile.images > 1:
        tests.append("image < all_images")
    channel = f"e % {g.in_channels}" if g.in_channels > 1 else ""
    return {
        **geometry_variables(kernel),
        "box_title": box_title(tile),
        "axes": [axis for axis in axes if not axis["trivial"]],
        "images": tile.images,
        "threads": tile.threads,
        "positions": tiling.positions,
        "inside": " && ".join(tests) or "true",
        "input_offset": " + ".join(part for part in (input_offset(tiling, axes), channel) if part) or "0",
        "clamped_row": clamped_row(tile),
        "row_offset": row_offset(tiling),
        "terms": terms,
        "padded_terms": padded_terms,
        "block_weights": padded_terms * tile.block_n,
        "tables": table("cj_terms", _offsets_of_terms(tiling, padded_terms)),
        **matrix_variables(tiling, axes),
        **epilogue_variables(kernel, loops.out_size, loops.extras),
    }


def _offsets_of_terms(tiling: Tiling, padded_terms: int) -> list[int]:
    """Where each term of a sum lies in threadgroup memory, from the first on."""
    depth, height, width = tiling.axes
    offsets = [
        ((d * depth.step * height.extent + h * height.step) * width.extent + w * width.step) * tiling.pitch + c
        for d, h, w, c in product(range(depth.taps), range(height.taps), range(width.taps), range(tiling.pitch))
    ]
    return offsets + [0] * (padded_terms - len(offsets))
