"""Kernel and schedule -> the text of "cpu/softmax.c"."""

from __future__ import annotations

from convjit.emit.cpu.language import functions_used
from convjit.emit.cpu.source import C_TYPES, Source, rotations
from convjit.emit.render import render
from convjit.kernel import Softmax
from convjit.schedule import Schedule


def source(kernel: Softmax, schedule: Schedule) -> Source:
    """The C text of a softmax; `kernel` is one of `Softmax.any_batch`."""
    columns, lanes = kernel.shape[-1], schedule.number("lanes")
    name = f"softmax_{columns}"
    variables = {
        **dict(schedule.choices),
        "name": name,
        "columns": columns,
        "dtype": kernel.dtype,
        "c_type": C_TYPES[kernel.dtype],
        "dtypes": {kernel.dtype},
        "functions": functions_used(["vec_exp(x)"]),
        "rotations": rotations(lanes),
    }
    return Source(render("cpu/softmax.c", **variables), name)
