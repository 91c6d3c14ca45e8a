"""Kernel and schedule -> the text of "cpu/norm.c"."""

from __future__ import annotations

from math import prod

from convjit.emit.cpu.elementwise import offset_of
from convjit.emit.cpu.language import C, functions_used
from convjit.emit.cpu.simplify import simplify
from convjit.emit.cpu.source import C_TYPES, Source, rotations
from convjit.emit.epilogue import statements
from convjit.emit.render import render
from convjit.kernel import Norm
from convjit.schedule import Schedule


def source(kernel: Norm, schedule: Schedule) -> Source:
    """The C text of a norm; `kernel` is one of `Norm.any_batch`."""
    *rows, channels = kernel.shape
    lanes = schedule.number("lanes")
    epilogue = simplify(kernel.epilogue)
    lines, values = statements(epilogue, ["normalised", *(f"e{n}" for n in range(len(kernel.extras)))], C)
    types = {instruction.type for instruction in epilogue.instructions}
    name = f"norm_{'x'.join(map(str, ('n', *kernel.shape[1:])))}"
    variables = {
        **dict(schedule.choices),
        "name": name,
        "title": _title(kernel),
        "is_by_row": kernel.is_by_row,
        "centered": kernel.centered,
        "channels": channels,
        "groups": kernel.groups,
        "interleaved": kernel.interleaved,
        "eps": repr(kernel.eps),
        "dtype": kernel.dtype,
        "c_type": C_TYPES[kernel.dtype],
        "dtypes": {*kernel.operand_dtypes, *kernel.result_dtypes, *types},
        "functions": functions_used(lines),
        "row_extents": rows,
        "inner_rows": prod(rows[1:]),
        "rotations": rotations(lanes),
        "extras": [
            {"c_type": C_TYPES[e.dtype], "dtype": e.dtype, "varies": e.shape[-1] > 1, "offset": offset_of(e, "number")}
            for e in kernel.extras
        ],
        "results": [
            {"dtype": dtype, "c_type": C_TYPES[dtype], "value": value}
            for dtype, value in zip(kernel.result_dtypes, values, strict=True)
        ],
        "statements": lines,
    }
    return Source(render("cpu/norm.c", **variables), name)


def _title(kernel: Norm) -> str:
    groups = f"{kernel.groups} interleaved groups" if kernel.interleaved else f"{kernel.groups} groups"
    over = "of each pixel" if kernel.is_by_row else f"of {groups} over the pixels of an image"
    mean = "" if kernel.centered else ", the mean taken for 0"
    return f"Normalises {kernel.shape[-1]} channels of {kernel.dtype} {over}{mean}."
