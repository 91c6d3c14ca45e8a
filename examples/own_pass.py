"""A researcher's pass: an xDSL `ModulePass` on the fused IR, used by name, before and after.

Hard-swish divides by six in every pixel. This pass multiplies by a sixth instead, which is cheaper, and a last bit off:
the kind of trade that a compiler should not make unasked, and that you may want to try.

python examples/own_pass.py
"""

from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
from xdsl.context import Context
from xdsl.dialects import arith
from xdsl.dialects.builtin import FloatAttr, ModuleOp, f32
from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import PatternRewriter, PatternRewriteWalker, RewritePattern, op_type_rewrite_pattern

import convjit


class DivisionByConstant(RewritePattern):
    """`arith.divf %x, c` -> `arith.mulf %x, 1 / c`."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: arith.DivfOp, rewriter: PatternRewriter, /) -> None:
        divisor = op.rhs.owner
        if not isinstance(divisor, arith.ConstantOp) or not isinstance(divisor.value, FloatAttr):
            return
        reciprocal = arith.ConstantOp(FloatAttr(1 / divisor.value.value.data, f32))
        rewriter.replace(op, [reciprocal, arith.MulfOp(op.lhs, reciprocal)])


@convjit.passes.register
@dataclass(frozen=True)
class MultiplyByReciprocalPass(ModulePass):
    """Fused convolutions hold their epilogues as `arith` and `math` ops, so any xDSL rewriting applies to them."""

    name = "multiply-by-reciprocal"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        PatternRewriteWalker(DivisionByConstant()).rewrite_module(op)


def main() -> None:
    model, x = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Hardswish()), mx.random.normal((1, 16, 16, 8))
    before = convjit.compile(model)
    after = convjit.compile(model, pipeline=f"{convjit.passes.OPTIMIZE},multiply-by-reciprocal")
    difference = mx.abs(before(x) - after(x)).max().item()

    print("== before\n" + convjit.inspect.ir(before, "fused"))
    print("\n== after\n" + convjit.inspect.ir(after, "multiply-by-reciprocal"))
    print(f"\nlargest difference: {difference:.1e}")


if __name__ == "__main__":
    main()
