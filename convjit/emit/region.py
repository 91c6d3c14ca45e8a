"""The kernels of the `conv` dialect -> `Kernel`, `Elementwise` and others: IR becomes plain values."""

from __future__ import annotations

from functools import cache
from typing import cast

from xdsl.dialects import arith
from xdsl.dialects.builtin import FloatAttr, IntegerAttr, StringAttr
from xdsl.ir import Attribute, Operation, SSAValue

from convjit.ir.bodies import YieldOp
from convjit.ir.conv import ConvolutionOp, FusedOp
from convjit.ir.elementwise import ElementwiseOp
from convjit.ir.norm import NormOp
from convjit.ir.others import OtherOp
from convjit.ir.pool import PoolGradientOp, PoolOp
from convjit.ir.rearrange import RearrangeOp
from convjit.ir.softmax import SoftmaxOp
from convjit.ir.types import element_type, shape_of
from convjit.kernel import (
    Accuracy,
    Elementwise,
    Epilogue,
    Extra,
    Instruction,
    Kernel,
    Norm,
    OtherKernel,
    Pool,
    PoolGradient,
    PoolKind,
    Rearrange,
    Result,
    Softmax,
    identity_epilogue,
)


def kernel_of(op: ConvolutionOp) -> Kernel:
    """The kernel that an op asks for."""
    if isinstance(op, FusedOp):
        return _convolution(op)
    dtype = _dtype(op.input)
    return Kernel(op.geometry, dtype, (), identity_epilogue(dtype), (dtype,), _accuracy(op), "weight_gradient")


def other_kernel_of(op: OtherOp) -> OtherKernel:
    """The kernel that an op asks for which is no convolution."""
    if isinstance(op, PoolOp):
        return Pool(cast(PoolKind, op.kind.data), op.geometry, _dtype(op.input), shape_of(op.result.type))
    if isinstance(op, PoolGradientOp):
        return PoolGradient(op.geometry, _dtype(op.input))
    if isinstance(op, SoftmaxOp):
        return Softmax(shape_of(op.input.type), _dtype(op.input))
    if isinstance(op, RearrangeOp):
        read = tuple(shape_of(v.type) for v in op.inputs)
        return Rearrange(shape_of(op.result.type), _dtype(op.result), read, op.parts.data)
    if isinstance(op, NormOp):
        return _norm(op)
    extents = op.extents
    results = tuple(Result(shape_of(v.type), _dtype(v), n in op.summed) for n, v in enumerate(op.outputs))
    return Elementwise(extents, tuple(_extra(v, len(extents)) for v in op.inputs), _epilogue(op), results)


def _extra(value: SSAValue, rank: int) -> Extra:
    shape = shape_of(value.type)[-rank:]
    return Extra((1,) * (rank - len(shape)) + shape, _dtype(value))


def _convolution(op: FusedOp) -> Kernel:
    geometry = op.geometry
    rank = len(geometry.out_shape)
    return Kernel(
        geometry,
        _dtype(op.input),
        tuple(_extra(e, rank) for e in op.extras),
        _epilogue(op),
        tuple(map(_dtype, op.outputs)),
        _accuracy(op),
    )


def _norm(op: NormOp) -> Norm:
    shape, (_, pixels, groups, _) = shape_of(op.input.type), op.view.data
    return Norm(
        shape,
        pixels,
        groups,
        op.interleaved is not None,
        op.eps.value.data,
        op.centered is not None,
        _dtype(op.input),
        tuple(_extra(e, len(shape)) for e in op.extras),
        _epilogue(op),
        tuple(map(_dtype, op.outputs)),
    )


def _accuracy(op: ConvolutionOp) -> Accuracy:
    accuracy = op.attributes.get("accuracy")
    return cast(Accuracy, accuracy.data) if isinstance(accuracy, StringAttr) else "fast"


def _dtype(value: SSAValue) -> str:
    return _name(element_type(value))


@cache
def _name(type_: Attribute) -> str:
    """As the IR prints it: "f32", "i1"."""
    return str(type_)


def _epilogue(op: FusedOp | NormOp | ElementwiseOp) -> Epilogue:
    block = op.body.block
    numbers: dict[SSAValue, int] = {argument: n for n, argument in enumerate(block.args)}
    instructions: list[Instruction] = []
    results: tuple[int, ...] = ()
    for inner in block.ops:
        operands = tuple(numbers[v] for v in inner.operands)
        if isinstance(inner, YieldOp):
            results = operands
            continue
        numbers[inner.results[0]] = len(block.args) + len(instructions)
        instructions.append(Instruction(inner.name, operands, _name(inner.results[0].type), _attribute(inner)))
    return Epilogue(tuple(_name(a.type) for a in block.args), tuple(instructions), results)


def _attribute(op: Operation) -> str | float | bool | None:
    if isinstance(op, arith.CmpfOp):
        return arith.CMPF_COMPARISON_OPERATIONS[op.predicate.value.data]
    if not isinstance(op, arith.ConstantOp):
        return None
    if isinstance(op.value, FloatAttr):
        return op.value.value.data
    assert isinstance(op.value, IntegerAttr)
    return bool(op.value.value.data)
