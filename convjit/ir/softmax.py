"""`conv.softmax`: along the last axis.

%p = conv.softmax %x : tensor<1x8x8x32xf32> -> tensor<1x8x8x32xf32>
"""

from __future__ import annotations

from xdsl.dialects.builtin import StringAttr, TensorType
from xdsl.ir import SSAValue
from xdsl.irdl import (
    IRDLOperation,
    irdl_op_definition,
    operand_def,
    opt_prop_def,
    result_def,
    traits_def,
)
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from convjit.ir.attributes import ScheduleAttr
from convjit.ir.types import shape_of


@irdl_op_definition
class SoftmaxOp(IRDLOperation):
    """exp(x - max) / sum along the last axis: one kernel. `layer` is the name that `raise-softmax` gave it."""

    name = "conv.softmax"

    input = operand_def(TensorType)
    layer = opt_prop_def(StringAttr)
    schedule = opt_prop_def(ScheduleAttr)
    result = result_def(TensorType)

    traits = traits_def(Pure())
    assembly_format = "$input (`layer` $layer^)? (`schedule` $schedule^)? attr-dict `:` type($input) `->` type($result)"

    def __init__(self, input: SSAValue, layer: StringAttr | None = None):
        super().__init__(operands=[input], properties={"layer": layer}, result_types=[input.type])

    def verify_(self) -> None:
        if self.input.type != self.result.type or not shape_of(self.input.type):
            raise VerifyException(f"a softmax of {self.input.type} cannot be {self.result.type}")
