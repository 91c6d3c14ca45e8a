"""Scheduled IR -> rows: what became of each convolution of the user's program, and why not more; the other kernels."""

from __future__ import annotations

from collections.abc import Iterator

from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.dialects.func import ReturnOp
from xdsl.ir import Operation, SSAValue

from convjit.emit.region import other_kernel_of
from convjit.geometry import GeometryError, product_in_words
from convjit.ir.bodies import YieldOp
from convjit.ir.conv import ConvolutionOp, FusedOp, StretchOp, name_of
from convjit.ir.elementwise import ElementwiseOp
from convjit.ir.mlx import PrimitiveOp, is_primitive
from convjit.ir.others import OtherOp
from convjit.ir.types import element_type, shape_of
from convjit.passes.elementwise import FLOAT_TYPES, is_elementwise
from convjit.passes.raise_conv import geometry_of, is_as_defined
from convjit.reporting.report import PLAIN, ZEROS, OtherRow, Row


def rows(module: ModuleOp) -> Iterator[Row]:
    """The convolutions of a scheduled module, in program order: those of `@prepare` first."""
    for op in module.walk():
        if isinstance(op, ConvolutionOp):
            yield _compiled(op)
        elif is_primitive(op, "Convolution"):
            yield _plain(op)
        elif "convolution" in op.attributes:  # a product or the last op of a weight gradient, refused
            is_linear = is_primitive(op, "Matmul", "AddMM")
            yield Row(_text(op, "layer"), _text(op, "convolution"), "", PLAIN, _text(op, "refused"), is_linear)


def other_rows(module: ModuleOp, failed: dict[str, str]) -> Iterator[OtherRow]:
    """The other kernels of a scheduled module, in program order, and those that failed here.

    Args:
        module: the scheduled IR.
        failed: name -> why.
    """
    for op in module.walk():
        if isinstance(op, OtherOp):
            kernel = PLAIN if op.schedule is None else op.schedule.data.in_words()
            yield OtherRow(name_of(op), _shape(op), _text(op, "fused"), kernel, _text(op, "note"))
    for name, why in failed.items():
        yield OtherRow(name, "", "", PLAIN, why)


def _shape(op: OtherOp) -> str:
    if not isinstance(op, ElementwiseOp):
        return other_kernel_of(op).in_words()
    sums = f"{len(op.summed)} sums" if len(op.summed) > 1 else "1 sum" if op.summed else ""
    return ", ".join(filter(None, ["x".join(map(str, op.extents)), sums]))


def _compiled(op: ConvolutionOp) -> Row:
    kernel = PLAIN if op.schedule is None else op.schedule.data.in_words()
    note = "; ".join(filter(None, [_text(op, "note"), _text(op, "tuned"), _end_of_epilogue(op)]))
    return Row(name_of(op), _in_words(op), _text(op, "fused"), kernel, note, op.window.data.rank == 0)


def _in_words(op: ConvolutionOp) -> str:
    if op.window.data.rank:
        return op.geometry.in_words(batch=True)
    return product_in_words(shape_of(op.input.type), op.geometry.out_channels)


def _plain(op: PrimitiveOp) -> Row:
    kernel = PLAIN
    try:
        shapes = geometry_of(op).in_words(batch=True)
        note = _text(op, "refused") or _why_plain(op)
    except GeometryError as e:
        shapes, note = "", str(e)
    if 0 in shape_of(op.operands[0].type):
        kernel, note = ZEROS, "its input is empty"
    return Row(_text(op, "layer") or "conv", shapes, "", kernel, note)


def _why_plain(op: PrimitiveOp) -> str:
    """Why the passes left a convolution that has a geometry as it was."""
    if element_type(op.results[0]) not in FLOAT_TYPES:
        return "its dtype is neither float32, float16 nor bfloat16"
    return "no pass of the pipeline raises it" if is_as_defined(op) else "MLX gives it another shape than it has"


def _text(op: Operation, attribute: str) -> str:
    value = op.attributes.get(attribute)
    return value.data if isinstance(value, StringAttr) else ""


def _end_of_epilogue(op: ConvolutionOp) -> str:
    """What reads the kernel's results next, where that is a plain MLX op; a weight gradient has no epilogue."""
    if not isinstance(op, FusedOp):
        return ""
    for result in op.outputs:
        for user in _users(result):
            if isinstance(user, PrimitiveOp):
                return f"ends at {user.primitive.data}: {_why_not(user)}"
    return ""


def _users(value: SSAValue) -> Iterator[Operation]:
    """The users of a kernel's result, seen through the stretch that yields it."""
    for use in value.uses:
        stretch = use.operation.parent_op()
        if isinstance(use.operation, YieldOp) and isinstance(stretch, StretchOp):
            yield from _users(stretch.outputs[use.index])
        elif not isinstance(use.operation, ReturnOp):
            yield use.operation


def _why_not(user: PrimitiveOp) -> str:
    if is_elementwise(user):
        return "another operand depends on this convolution or cannot be read by a kernel"
    return "not elementwise"
