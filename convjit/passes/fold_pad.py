"""`fold-pad`: explicit padding with zeros becomes part of the convolution's window.

    %p = mlx.primitive "Pad"(%x, %zero) [array<i64: 0, 1, 2, 3>, array<i64: 0, 1, 0, 0>, array<i64: 0, 2, 1, 0>]
    %y = conv.general %p, %w window <..., pad = [0, 0] : [0, 0], ...>
->
    %y = conv.general %x, %w window <..., pad = [1, 0] : [2, 1], ...>

Only constant zeros on spatial axes, never a negative amount. Where the input is dilated (a transposed convolution),
each padded element brings its own gap of zeros, so the amounts are multiplied by the dilation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter

from convjit.geometry import Window
from convjit.ir.conv import GeneralOp
from convjit.ir.mlx import PrimitiveOp, is_primitive
from convjit.ir.types import shape_of
from convjit.passes.values import constant_of, forward_of


def _folded(value: SSAValue, window: Window) -> Window | None:
    """`window` with the padding of the `Pad` that made `value`, or None if it does not fold."""
    pad = value.owner
    if window.rank == 0 or not is_primitive(pad, "Pad") or constant_of(pad.operands[1]) != 0.0:
        return None
    amounts = padding_of(pad)
    if amounts is None:
        return None
    lo, hi = amounts
    return replace(
        window,
        pad_lo=tuple(p + q * d for p, q, d in zip(window.pad_lo, lo, window.input_dilation, strict=True)),
        pad_hi=tuple(p + q * d for p, q, d in zip(window.pad_hi, hi, window.input_dilation, strict=True)),
    )


def padding_of(pad: PrimitiveOp) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """How much a `Pad` adds before and after each spatial axis, never a negative amount; None if it pads others."""
    axes, low, high = pad.python_arguments
    lo, hi = ([0] * len(shape_of(pad.results[0].type)) for _ in range(2))
    for axis, before, after in zip(axes, low, high, strict=True):
        lo[axis], hi[axis] = before, after
    outer = (lo[0], hi[0], lo[-1], hi[-1])
    return None if any(outer) or min(lo + hi) < 0 else (tuple(lo[1:-1]), tuple(hi[1:-1]))


@dataclass(frozen=True)
class FoldPadPass(ModulePass):
    """See the module's docstring."""

    name = "fold-pad"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in forward_of(op):
            for conv in [o for o in function.body.block.ops if isinstance(o, GeneralOp)]:
                window = _folded(conv.input, conv.window.data)
                if window is None:
                    continue
                pad = conv.input.owner
                assert isinstance(pad, PrimitiveOp) and len(shape_of(pad.operands[0].type)) == window.rank + 2
                new = GeneralOp(pad.operands[0], conv.weight, window, conv.result.type, conv.layer)
                new.location = conv.location
                Rewriter.replace_op(conv, new)
                if not pad.results[0].uses:
                    Rewriter.erase_op(pad)
