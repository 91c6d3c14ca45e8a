"""Kernel and schedule -> the text of "cpu/elementwise.c"."""

from __future__ import annotations

from math import prod
from typing import Any

from convjit.emit.cpu.language import C, functions_used
from convjit.emit.cpu.simplify import simplify
from convjit.emit.cpu.source import C_TYPES, Source
from convjit.emit.elementwise import title
from convjit.emit.epilogue import statements
from convjit.emit.render import render
from convjit.kernel import Elementwise, Epilogue, Extra
from convjit.schedule import Schedule


def source(kernel: Elementwise, schedule: Schedule) -> Source:
    """The C text of elementwise ops and sums of channels; `kernel` is one of `Elementwise.any_batch`."""
    *rows, columns = kernel.shape
    body = simplify(kernel.body)
    lines, values = statements(body, [f"e{n}" for n in range(len(kernel.operands))], C)
    numbers = [n for n, instruction in enumerate(body.instructions) if instruction.op != "arith.constant"]
    fixed = _fixed_values(kernel, body)
    types = {instruction.type for instruction in body.instructions}
    name = f"{'sums' if kernel.has_sums else 'elementwise'}_{'x'.join(map(str, ('n', *kernel.shape[1:])))}"
    variables = {
        "name": name,
        "title": title(kernel),
        "lanes": schedule.number("lanes"),
        "row_block": schedule.number("row_block"),
        "column_block": schedule.number("column_block"),
        "is_flat": not rows,
        "columns": columns,
        "row_extents": rows,
        "inner_rows": prod(rows[1:]),
        "dtypes": {*(o.dtype for o in kernel.operands), *kernel.result_dtypes, *types},
        "functions": functions_used(lines),
        "operands": [_operand(n, operand, kernel) for n, operand in enumerate(kernel.operands)],
        "results": [
            {"dtype": r.dtype, "c_type": C_TYPES[r.dtype], "value": value, "is_sum": r.is_sum, "index": n}
            for n, (r, value) in enumerate(zip(kernel.results, values, strict=True))
        ],
        "fixed": [
            {"name": f"v{n}", "type": C.types[body.instructions[n].type].removeprefix("const "), "line": line}
            for n, line in zip(numbers, lines, strict=True)
            if len(body.inputs) + n in fixed
        ],
        "statements": [line for n, line in zip(numbers, lines, strict=True) if len(body.inputs) + n not in fixed],
    }
    return Source(render("cpu/elementwise.c", **variables), name)


def _fixed_values(kernel: Elementwise, body: Epilogue) -> set[int]:
    """The values that are the same in every row."""
    fixed = {n for n, operand in enumerate(kernel.operands) if _is_fixed(operand)}
    for number, instruction in enumerate(body.instructions, len(body.inputs)):
        if fixed.issuperset(instruction.operands):
            fixed.add(number)
    return fixed


def _is_fixed(operand: Extra) -> bool:
    """Where there is one long row, its elements are what differs."""
    rows = operand.shape if len(operand.shape) == 1 else operand.shape[:-1]
    return max(rows) == 1


def _operand(number: int, operand: Extra, kernel: Elementwise) -> dict[str, Any]:
    return {
        "index": number,
        "c_type": C_TYPES[operand.dtype],
        "dtype": operand.dtype,
        "fixed": _is_fixed(operand),
        "varies": operand.shape[-1] > 1,
        "offset": offset_of(operand, "row") if len(operand.shape) > 1 else "row",
    }


def offset_of(operand: Extra, row: str) -> str:
    """Elements from the first row to that of number `row`, at i0, i1, ... along its axes."""
    *rows, columns = operand.shape
    if all(extent > 1 for extent in rows):
        return f"{row} * {columns}"
    steps = [prod(operand.shape[axis + 1 :]) if extent > 1 else 0 for axis, extent in enumerate(rows)]
    return " + ".join(f"i{axis} * {step}" for axis, step in enumerate(steps) if step) or "0"
