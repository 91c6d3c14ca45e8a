"""Elementwise ops by `metal/elementwise.metal`; sums of channels by a second kernel, which adds up parts of them."""

from __future__ import annotations

from dataclasses import replace
from math import ceil, prod
from typing import Any

from convjit.emit.elementwise import title
from convjit.emit.epilogue import statements, without_unused
from convjit.emit.metal.dispatch import Dispatch, MetalText, padded, write_text
from convjit.emit.metal.indexing import digit, row_major
from convjit.emit.metal.language import METAL, TYPES
from convjit.kernel import Elementwise, Epilogue, Extra
from convjit.schedule import Schedule
from convjit.schedule.metal.elementwise import Tile

_LANES_OF_SUMS = 8
"""Columns of a threadgroup of the second kernel."""

_KINDS = {(False, False): "scalar", (False, True): "column", (True, False): "row", (True, True): "element"}
"""What the template calls an operand that varies along rows, and along columns."""


def dispatches(kernel: Elementwise, schedule: Schedule) -> tuple[Dispatch, ...]:
    """One kernel; where there are sums, a second one that adds up what the threadgroups of the first have."""
    *outer, columns = kernel.collapsed().shape
    rows, is_flat = prod(outer), not outer
    tile = Tile.of(schedule, is_flat=is_flat)
    parts = ceil(columns / (tile.columns * tile.rows)) if is_flat else ceil(rows / (tile.groups * tile.rows))
    grid = (padded(tile.lanes if is_flat else ceil(columns / tile.vector), tile.lanes), parts * tile.groups, 1)
    wholes = [n for n, result in enumerate(kernel.results) if not result.is_sum]
    outputs = [(kernel.results[n].shape, kernel.results[n].dtype) for n in wholes]
    partial_shape = (parts, len(kernel.results) - len(wholes), columns)
    first = Dispatch(
        _text(kernel.any_batch(), tile, schedule.template),
        tuple(range(len(kernel.operands))),
        (*outputs, (partial_shape, "f32")) if kernel.has_sums else tuple(outputs),
        grid,
        (tile.lanes, tile.groups, 1),
        sizes=(columns if is_flat else rows,),
        results=tuple(wholes),
    )
    if not kernel.has_sums:
        return (first,)
    return first, _sums_of_parts(kernel, schedule.number("parts"), partial_shape, len(kernel.operands) + len(wholes))


def _sums_of_parts(kernel: Elementwise, threads: int, shape: tuple[int, int, int], partial: int) -> Dispatch:
    """The second kernel.

    Args:
        kernel: whose sums.
        threads: that share a column.
        shape: parts, sums, columns.
        partial: the number of the value of this shape.
    """
    parts, _, columns = shape
    sums = [n for n, result in enumerate(kernel.results) if result.is_sum]
    types = [kernel.results[n].dtype for n in sums]
    variables = {
        "columns": columns,
        "lanes": _LANES_OF_SUMS,
        "groups": threads,
        "types": [TYPES[dtype] for dtype in types],
    }
    text = write_text(
        "metal/elementwise_sums.metal",
        variables,
        [("partial", "f32"), ("parts", "i32")],
        [(f"y{n}", dtype) for n, dtype in enumerate(types)],
    )
    grid = (padded(columns, _LANES_OF_SUMS), threads, 1)
    outputs = tuple((kernel.results[n].shape, kernel.results[n].dtype) for n in sums)
    return Dispatch(text, (partial,), outputs, grid, (_LANES_OF_SUMS, threads, 1), sizes=(parts,), results=tuple(sums))


def _text(kernel: Elementwise, tile: Tile, template: str) -> MetalText:
    """The text for any extent of the outermost axis; `kernel` is one of `Elementwise.any_batch`."""
    *rows, columns = kernel.shape
    body = _sums_before_rounding(kernel)
    operands = [_operand(n, operand, rows, tile.vector) for n, operand in enumerate(kernel.operands)]
    lines, values = statements(body, [operand["element"] for operand in operands], METAL)
    wholes = [(r.dtype, value) for r, value in zip(kernel.results, values, strict=True) if not r.is_sum]
    elements = [operand for operand in operands if operand["kind"] == "element"]
    variables = {
        "title": title(kernel),
        "is_flat": not rows,
        "columns": tile.columns if not rows else columns,
        "is_ragged": bool(rows) and columns % tile.columns != 0,
        "vector": tile.vector,
        "lanes": tile.lanes,
        "groups": tile.groups,
        "rows": tile.rows,
        "reads_elements": bool(elements),
        "uses_at": bool(wholes) or any(not operand["row"] for operand in elements),
        "operands": operands,
        "statements": lines,
        "wholes": [{"type": TYPES[dtype], "value": value} for dtype, value in wholes],
        "sums": [
            value if body.type_of(number) == "f32" else f"float({value})"
            for result, number, value in zip(kernel.results, body.results, values, strict=True)
            if result.is_sum
        ],
    }
    size = "elements" if not rows else "rows"
    partial = [("partial", "f32")] if kernel.has_sums else []
    return write_text(
        template,
        variables,
        [*((f"x{n}", operand.dtype) for n, operand in enumerate(kernel.operands)), (size, "i32")],
        [*((f"y{n}", dtype) for n, (dtype, _) in enumerate(wholes)), *partial],
    )


def _sums_before_rounding(kernel: Elementwise) -> Epilogue:
    """The ops of `kernel`, whose sums are of what is not rounded to a half type yet: the sums will be."""
    body = kernel.body
    first = len(body.inputs)
    results = list(body.results)
    for number, result in enumerate(kernel.results):
        made = body.instructions[results[number] - first] if results[number] >= first else None
        if result.is_sum and made and made.op == "arith.truncf":
            results[number] = made.operands[0]
    return without_unused(replace(body, results=tuple(results)))


def _operand(number: int, operand: Extra, rows: list[int], vector: int) -> dict[str, Any]:
    """Where the elements of an operand lie, and what they are called. One long row varies along both or neither."""
    *outer, columns = operand.shape
    varies = [extent > 1 for extent in outer] if rows else [columns > 1]
    kind = _KINDS[any(varies), columns > 1]
    return {
        "index": number,
        "type": TYPES[operand.dtype],
        "kind": kind,
        "zero": "0.0f" if operand.dtype == "f32" else f"{TYPES[operand.dtype]}(0.0f)",
        "element": f"e{number}[j]" if kind in ("column", "element") and vector > 1 else f"e{number}",
        "row": "" if not rows or all(varies) else _row(outer, rows),
    }


def _row(outer: list[int], rows: list[int]) -> str:
    """The number of the row, among those of an operand, that belongs to row `row` of all elements."""
    positions = [digit("row", rows, axis) if extent > 1 else None for axis, extent in enumerate(outer)]
    return row_major(positions, outer)
