"""What ops with a region have in common: how it ends, and what it has to take and give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from xdsl.dialects.builtin import f32
from xdsl.dialects.utils import AbstractYieldOperation
from xdsl.ir import Attribute, Region
from xdsl.irdl import irdl_op_definition, lazy_traits_def
from xdsl.traits import HasParent, IsTerminator, OpTrait
from xdsl.utils.exceptions import VerifyException

from convjit.ir.types import element_type, shape_of

if TYPE_CHECKING:
    from convjit.ir.conv import FusedOp
    from convjit.ir.norm import NormOp


def _traits_of_yield() -> tuple[OpTrait, ...]:
    from convjit.ir.conv import FusedOp, StretchOp
    from convjit.ir.elementwise import ElementwiseOp
    from convjit.ir.norm import NormOp

    return IsTerminator(), HasParent(FusedOp, ElementwiseOp, NormOp, StretchOp)


@irdl_op_definition
class YieldOp(AbstractYieldOperation[Attribute]):
    """What an epilogue, the body of an elementwise kernel or a stretch hands back."""

    name = "conv.yield"

    traits = lazy_traits_def(_traits_of_yield)


def check_body(body: Region, arguments: Sequence[Attribute], results: Sequence[Attribute]) -> None:
    """Raises VerifyException unless the block of `body` takes and yields values of these types."""
    block = body.block
    if [argument.type for argument in block.args] != list(arguments):
        raise VerifyException(f"expected block arguments of the types {_in_words(arguments)}")
    terminator = block.last_op
    if not isinstance(terminator, YieldOp) or [v.type for v in terminator.arguments] != list(results):
        raise VerifyException(f"expected a conv.yield of {_in_words(results)}")


def _in_words(types: Sequence[Attribute]) -> str:
    return f"({', '.join(map(str, types))})"


def check_epilogue(op: FusedOp | NormOp, shape: tuple[int, ...]) -> None:
    """Raises VerifyException unless the epilogue fits a result of this shape."""
    for extra in op.extras:
        if not broadcasts(shape_of(extra.type), shape):
            raise VerifyException(f"an extra of shape {list(shape_of(extra.type))} does not broadcast to {list(shape)}")
    check_body(op.body, [f32, *map(element_type, op.extras)], [*map(element_type, op.outputs)])


def broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    """As in NumPy."""
    behind = to[len(to) - len(shape) :]
    return len(shape) <= len(to) and all(s in (1, t) for s, t in zip(shape, behind, strict=True))
