"""`raise-softmax`: MLX's `Softmax` becomes `conv.softmax`.

    %p = mlx.primitive "Softmax"(%s) [true]                                     (16, 99, 99)
->
    %p = conv.softmax %s layer "softmax"

Between the two products of attention it takes MLX longer than both take our kernels. Sums are always in float32, which
MLX calls precise. What stays: other dtypes than f32, f16 and bf16, functions without a convolution, and what a backend
refused, which has an attribute `refused`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter

from convjit.ir.mlx import PrimitiveOp, is_primitive
from convjit.ir.softmax import SoftmaxOp
from convjit.ir.types import element_type, shape_of
from convjit.passes.elementwise import FLOAT_TYPES
from convjit.passes.values import forward_of, has_convolutions, numbered


def named_softmaxes(module: ModuleOp) -> Iterator[tuple[str, PrimitiveOp]]:
    """Every softmax that can be raised with a name, unique in the module, in program order."""
    count = 0
    for function in forward_of(module):
        for op in function.body.block.ops:
            if not is_primitive(op, "Softmax") or element_type(op.operands[0]) not in FLOAT_TYPES:
                continue
            if op.operands[0].type == op.results[0].type and 0 not in shape_of(op.operands[0].type):
                count += 1
                yield numbered("softmax", count), op


@dataclass(frozen=True)
class RaiseSoftmaxPass(ModulePass):
    """See the module's docstring."""

    name = "raise-softmax"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for name, softmax in list(named_softmaxes(op)):
            if "refused" not in softmax.attributes and has_convolutions(softmax.parent_block()):
                new = SoftmaxOp(softmax.operands[0], StringAttr(name))
                new.location = softmax.location
                Rewriter.replace_op(softmax, new)
