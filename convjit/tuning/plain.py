"""A kernel by MLX's own ops: its convolution, then its epilogue as elementwise ops. The peer of every candidate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import astuple
from typing import Any

import mlx.core as mx

from convjit.backends import MLX_DTYPES
from convjit.ir import replay
from convjit.ir.reference import COMPARE, SCALAR_OPS
from convjit.kernel import Instruction, Kernel

Arrays = Sequence[mx.array]


def function(kernel: Kernel) -> Callable[[Arrays], list[mx.array]]:
    """A function of a kernel's operands (`Kernel.operand_shapes`) and extras that gives its results.

    Storage types are the kernel's own: MLX convolves in half where the kernel reads half, and sums in fp32.
    """
    window, epilogue = astuple(kernel.geometry.window), kernel.epilogue
    if kernel.operation == "weight_gradient":
        return _weight_gradient(kernel)

    def run(arrays: Arrays) -> list[mx.array]:
        x, w, *extras = arrays
        total = replay.call("Convolution", window, [x, w], [])[0]
        values = [total.astype(mx.float32), *extras]
        for instruction in epilogue.instructions:
            values.append(_value(instruction, [values[o] for o in instruction.operands]))
        return [mx.broadcast_to(values[r], total.shape) for r in epilogue.results]

    return run


def _weight_gradient(kernel: Kernel) -> Callable[[Arrays], list[mx.array]]:
    """As MLX differentiates a convolution; the weight itself does not matter."""
    window = astuple(kernel.geometry.window)
    weight = mx.zeros(kernel.result_shape, MLX_DTYPES[kernel.dtype])

    def run(arrays: Arrays) -> list[mx.array]:
        x, dy = arrays
        return mx.vjp(lambda w: replay.call("Convolution", window, [x, w], []), [weight], [dy])[1]

    return run


def _value(instruction: Instruction, operands: list[Any]) -> mx.array:
    match instruction.op:
        case "arith.constant":
            number = float(instruction.attribute or 0)
            return mx.array(number).astype(mx.bool_ if instruction.type == "i1" else mx.float32)
        case "arith.cmpf":
            return COMPARE[str(instruction.attribute)](*operands)
        case "arith.extf" | "arith.truncf" | "arith.uitofp":
            return operands[0].astype(MLX_DTYPES[instruction.type])
        case op:
            return SCALAR_OPS[op](*operands)
