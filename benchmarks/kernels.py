"""The kernels that are measured: a convolution alone, with bias, SiLU and a residual, or its weight gradient; and MLX's
own ops for these."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import mlx.core as mx
import mlx.nn as nn

from convjit.geometry import Geometry
from convjit.kernel import Epilogue, Extra, Instruction, Kernel, identity_epilogue
from convjit.tuning import plain

EPILOGUES = ("bare", "bias+SiLU+residual")
WEIGHT_GRADIENT = "weight gradient"
"""What takes the place of an epilogue's name for the kernel that computes this."""


def kernel_of(geometry: Geometry, dtype: str, epilogue: str) -> Kernel:
    """A kernel that reads and writes `dtype` ("f32", "f16", "bf16"), with one of `EPILOGUES`, or `WEIGHT_GRADIENT`."""
    if epilogue == WEIGHT_GRADIENT:
        return Kernel(geometry, dtype, (), identity_epilogue(dtype), (dtype,), operation="weight_gradient")
    if epilogue == "bare":
        return Kernel(geometry, dtype, (), identity_epilogue(dtype), (dtype,))
    bias = Extra((*(1,) * (geometry.rank + 1), geometry.out_channels), dtype)
    residual = Extra(geometry.out_shape, dtype)
    return Kernel(geometry, dtype, (bias, residual), _bias_silu_residual(dtype), (dtype,))


def _bias_silu_residual(dtype: str) -> Epilogue:
    """silu(sum + bias) + residual, in fp32, rounded once."""
    is_half = dtype != "f32"
    inputs = ("f32", dtype, dtype)
    instructions: list[Instruction] = []

    def add(op: str, *operands: int, type: str = "f32", attribute: float | None = None) -> int:
        instructions.append(Instruction(op, operands, type, attribute))
        return len(inputs) + len(instructions) - 1

    bias = add("arith.extf", 1) if is_half else 1
    residual = add("arith.extf", 2) if is_half else 2
    x = add("arith.addf", 0, bias)
    one = add("arith.constant", attribute=1.0)
    silu = add("arith.divf", x, add("arith.addf", one, add("math.exp", add("arith.negf", x))))
    result = add("arith.addf", silu, residual)
    if is_half:
        result = add("arith.truncf", result, type=dtype)
    return Epilogue(inputs, tuple(instructions), (result,))


def mlx_of(kernel: Kernel) -> Callable[[Sequence[mx.array]], list[mx.array]]:
    """The same by MLX's own ops, as a user writes them: of input, weight (O, *kernel, C / groups), bias, residual; of a
    weight gradient, of the input and the output's gradient."""
    if kernel.operation == "weight_gradient":
        return plain.function(kernel)
    w = kernel.geometry.window

    def run(arrays: Sequence[mx.array]) -> list[mx.array]:
        x, weight, *extras = arrays
        y = mx.conv_general(
            x, weight, w.strides, (w.pad_lo, w.pad_hi), w.kernel_dilation, w.input_dilation, w.groups, w.flip
        )
        if extras:
            bias, residual = extras
            y = nn.silu(y + bias) + residual
        return [y]

    return run
