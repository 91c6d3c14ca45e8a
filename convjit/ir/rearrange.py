"""`conv.rearrange` and `conv.view`: the same elements at other places, or by other axes.

%y = conv.rearrange(%a, %b) parts <[64, 8] from 0 [8, 1] to 0 [24, 1], [64, 16] from 0 [16, 1] to 8 [24, 1]>
  : (tensor<1x8x8x8xf32>, tensor<1x8x8x16xf32>) -> tensor<1x8x8x24xf32>

%z = conv.view %y : tensor<1x8x8x24xf32> -> tensor<64x24xf32>
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from xdsl.dialects.builtin import StringAttr, TensorType
from xdsl.ir import Attribute, Data, SSAValue
from xdsl.irdl import (
    IRDLOperation,
    irdl_attr_definition,
    irdl_op_definition,
    operand_def,
    opt_prop_def,
    prop_def,
    result_def,
    traits_def,
    var_operand_def,
)
from xdsl.parser import AttrParser
from xdsl.printer import Printer
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from convjit.ir.attributes import ScheduleAttr
from convjit.ir.types import element_type, shape_of
from convjit.kernel.rearrange import Part


@irdl_attr_definition
class PartsAttr(Data[tuple[Part, ...]]):
    """`#conv.parts<[64, 8] from 0 [8, 1] to 0 [24, 1]>`: extents, where from and where to, both with strides."""

    name = "conv.parts"

    @classmethod
    def parse_parameter(cls, parser: AttrParser) -> tuple[Part, ...]:
        def numbers() -> tuple[int, ...]:
            return tuple(parser.parse_comma_separated_list(parser.Delimiter.SQUARE, parser.parse_integer))

        def part() -> Part:
            shape = numbers()
            parser.parse_keyword("from")
            source, source_strides = parser.parse_integer(), numbers()
            parser.parse_keyword("to")
            return Part(shape, source, source_strides, parser.parse_integer(), numbers())

        return tuple(parser.parse_comma_separated_list(parser.Delimiter.ANGLE, part))

    def verify(self) -> None:
        for part in self.data:
            if not len(part.shape) == len(part.source_strides) == len(part.target_strides):
                raise VerifyException(f"expected a stride for each extent of {part}")

    def print_parameter(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            printer.print_string(
                ", ".join(
                    f"{list(p.shape)} from {p.source} {list(p.source_strides)} to {p.target} {list(p.target_strides)}"
                    for p in self.data
                )
            )


@irdl_op_definition
class RearrangeOp(IRDLOperation):
    """A result put together from parts of dense arrays, see `kernel.Rearrange`: one kernel.

    `layer` is the name that `raise-rearrange` gave it.
    """

    name = "conv.rearrange"

    inputs = var_operand_def(TensorType)
    parts = prop_def(PartsAttr)
    layer = opt_prop_def(StringAttr)
    schedule = opt_prop_def(ScheduleAttr)
    result = result_def(TensorType)

    traits = traits_def(Pure())
    assembly_format = (
        "`(` $inputs `)` `parts` $parts (`layer` $layer^)? (`schedule` $schedule^)? attr-dict "
        "`:` functional-type($inputs, $result)"
    )

    def __init__(
        self, inputs: Sequence[SSAValue], parts: Sequence[Part], result_type: Attribute, layer: StringAttr | None = None
    ):
        super().__init__(
            operands=[inputs],
            properties={"parts": PartsAttr(tuple(parts)), "layer": layer},
            result_types=[result_type],
        )

    def verify_(self) -> None:
        parts, size = self.parts.data, prod(shape_of(self.result.type))
        if len(parts) != len(self.inputs):
            raise VerifyException(f"expected a part for each of {len(self.inputs)} inputs, got {len(parts)}")
        if sum(prod(part.shape) for part in parts) != size:
            raise VerifyException(f"the parts are not the {size} elements of the result")
        for value, part in zip(self.inputs, parts, strict=True):
            if element_type(value) != element_type(self.result):
                raise VerifyException(f"a part of {value.type} cannot be one of {self.result.type}")
            if not part.lies_within(prod(shape_of(value.type)), size):
                raise VerifyException(f"a part begins before its array, or ends behind it: {part}")


@irdl_op_definition
class ViewOp(IRDLOperation):
    """The same elements in the same order by other axes, between kernels: nothing runs."""

    name = "conv.view"

    input = operand_def(TensorType)
    result = result_def(TensorType)

    traits = traits_def(Pure())
    assembly_format = "$input attr-dict `:` type($input) `->` type($result)"

    def __init__(self, input: SSAValue, result_type: Attribute):
        super().__init__(operands=[input], result_types=[result_type])

    def verify_(self) -> None:
        elements = (prod(shape_of(v.type)) for v in (self.input, self.result))
        if element_type(self.input) != element_type(self.result) or len(set(elements)) > 1:
            raise VerifyException(f"{self.result.type} does not have the elements of {self.input.type}")
