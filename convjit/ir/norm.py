"""`conv.norm`: normalised by mean and variance, with an epilogue.

%n = conv.norm %x as <[1, 64, 4, 8]> eps 1.0e-05 : f64 centered extras(%s : tensor<32xf32>) {
^bb0(%normalised: f32, %scale: f32):
  %p = arith.mulf %normalised, %scale : f32
  conv.yield %p : f32
} : tensor<1x8x8x32xf32> -> tensor<1x8x8x32xf32>
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from xdsl.dialects.builtin import Float64Type, FloatAttr, StringAttr, TensorType, UnitAttr
from xdsl.ir import Attribute, Region, SSAValue
from xdsl.irdl import (
    IRDLOperation,
    irdl_op_definition,
    operand_def,
    opt_prop_def,
    prop_def,
    region_def,
    traits_def,
    var_operand_def,
    var_result_def,
)
from xdsl.traits import IsolatedFromAbove, Pure
from xdsl.utils.exceptions import VerifyException

from convjit.ir.attributes import NumbersAttr, ScheduleAttr
from convjit.ir.bodies import check_epilogue
from convjit.ir.types import shape_of


@irdl_op_definition
class NormOp(IRDLOperation):
    """(x - mean) / sqrt(variance + eps), and a scalar epilogue: one kernel.

    `view` is the input's shape as (images, pixels, groups, channels of a group): the pixels of an image and the
    channels of a group have statistics together. Without `centered` the mean counts as 0, which is for one pixel and
    one group only. The channels of an `interleaved` group lie as many apart as there are groups; else they are
    neighbours. The region is that of `conv.fused`; its first argument is what is normalised. `layer` is the name
    that `raise-norm` gave it.
    """

    name = "conv.norm"

    input = operand_def(TensorType)
    extras = var_operand_def(TensorType)
    view = prop_def(NumbersAttr)
    eps = prop_def(FloatAttr)
    centered = opt_prop_def(UnitAttr)
    interleaved = opt_prop_def(UnitAttr)
    layer = opt_prop_def(StringAttr)
    schedule = opt_prop_def(ScheduleAttr)
    body = region_def("single_block")
    outputs = var_result_def(TensorType)

    traits = traits_def(Pure(), IsolatedFromAbove())
    assembly_format = (
        "$input `as` $view (`interleaved` $interleaved^)? `eps` $eps (`centered` $centered^)? (`layer` $layer^)? "
        "(`schedule` $schedule^)? (`extras` `(` $extras^ `:` type($extras) `)`)? $body attr-dict "
        "`:` type($input) `->` type($outputs)"
    )

    def __init__(
        self,
        input: SSAValue,
        extras: Sequence[SSAValue],
        view: Sequence[int],
        eps: float,
        body: Region,
        result_types: Sequence[Attribute],
        *,
        centered: bool,
        interleaved: bool = False,
        layer: StringAttr | None = None,
    ):
        super().__init__(
            operands=[input, extras],
            properties={
                "view": NumbersAttr(tuple(view)),
                "eps": FloatAttr(eps, Float64Type()),
                "centered": UnitAttr() if centered else None,
                "interleaved": UnitAttr() if interleaved else None,
                "layer": layer,
            },
            regions=[body],
            result_types=[result_types],
        )

    @classmethod
    def like(cls, other: NormOp, extras: Sequence[SSAValue], body: Region, result_types: Sequence[Attribute]) -> NormOp:
        """The same norm with another epilogue."""
        return cls(
            other.input,
            extras,
            other.view.data,
            other.eps.value.data,
            body,
            result_types,
            centered=other.centered is not None,
            interleaved=other.interleaved is not None,
            layer=other.layer,
        )

    @property
    def is_bare(self) -> bool:
        """Does its epilogue give what is normalised, and no more?"""
        return not self.extras and self.body.block.first_op is self.body.block.last_op

    def verify_(self) -> None:
        shape, view = shape_of(self.input.type), self.view.data
        if len(view) != 4 or (prod(view[:2]), prod(view[2:])) != (prod(shape[:-1]), shape[-1]):
            raise VerifyException(f"shape {list(shape)} cannot be seen as {list(view)}")
        if not self.centered and view[1:3] != (1, 1):
            raise VerifyException("what is not centered has one pixel and one group")
        for result in self.outputs:
            if shape_of(result.type) != shape:
                raise VerifyException(f"expected result shape {list(shape)}, got {list(shape_of(result.type))}")
        check_epilogue(self, shape)
