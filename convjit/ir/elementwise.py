"""`conv.elementwise`: scalar ops on all elements of arrays, and sums over channels.

%z, %total = conv.elementwise over <[8, 32, 32, 16]> sums <[1]> (%y, %b) {
^bb0(%y1: f32, %b1: f32):
  %s = arith.addf %y1, %b1 : f32
  conv.yield %s, %s : f32, f32
} : (tensor<8x32x32x16xf32>, tensor<16xf32>) -> tensor<8x32x32x16xf32>, tensor<16xf32>
"""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects.builtin import StringAttr, TensorType
from xdsl.ir import Attribute, Region, SSAValue
from xdsl.irdl import (
    IRDLOperation,
    irdl_op_definition,
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
from convjit.ir.bodies import broadcasts, check_body
from convjit.ir.types import element_type, shape_of, without_leading_ones


@irdl_op_definition
class ElementwiseOp(IRDLOperation):
    """Scalar ops on all elements of arrays that broadcast against each other, and sums over channels: one kernel.

    The region runs once for each element of an array of `shape`. Its arguments are the matching elements of the inputs,
    which broadcast to `shape` as in NumPy; it yields one element a result. The results whose numbers are in `sums` are
    sums of what is yielded, over all axes but the last; the others hold all elements. Extents of 1 in front of the
    shapes of inputs and results do not count. `layer` is the name that `fuse-elementwise` gave it.
    """

    name = "conv.elementwise"

    inputs = var_operand_def(TensorType)
    shape = prop_def(NumbersAttr)
    sums = opt_prop_def(NumbersAttr)
    layer = opt_prop_def(StringAttr)
    schedule = opt_prop_def(ScheduleAttr)
    body = region_def("single_block")
    outputs = var_result_def(TensorType)

    traits = traits_def(Pure(), IsolatedFromAbove())
    assembly_format = (
        "`over` $shape (`sums` $sums^)? (`layer` $layer^)? (`schedule` $schedule^)? `(` $inputs `)` $body "
        "attr-dict `:` functional-type($inputs, $outputs)"
    )

    def __init__(
        self,
        inputs: Sequence[SSAValue],
        shape: Sequence[int],
        sums: Sequence[int],
        body: Region,
        result_types: Sequence[Attribute],
        layer: StringAttr | None = None,
    ):
        super().__init__(
            operands=[inputs],
            properties={
                "shape": NumbersAttr(tuple(shape)),
                "sums": NumbersAttr(tuple(sums)) if sums else None,
                "layer": layer,
            },
            regions=[body],
            result_types=[result_types],
        )

    @property
    def extents(self) -> tuple[int, ...]:
        """What the region runs over."""
        return self.shape.data

    @property
    def summed(self) -> frozenset[int]:
        """The numbers of the results that are sums."""
        return frozenset(self.sums.data if self.sums else ())

    def verify_(self) -> None:
        extents = self.extents
        if not extents or 0 in extents:
            raise VerifyException(f"there is nothing to do for shape {list(extents)}")
        for value in self.inputs:
            shape = without_leading_ones(shape_of(value.type))
            if not broadcasts(shape, extents):
                raise VerifyException(f"an input of shape {list(shape)} does not broadcast to {list(extents)}")
        for number, result in enumerate(self.outputs):
            expected = extents[-1:] if number in self.summed else extents
            if without_leading_ones(shape_of(result.type)) != without_leading_ones(expected):
                raise VerifyException(f"result {number} has shape {list(shape_of(result.type))}, not {list(expected)}")
        check_body(self.body, [*map(element_type, self.inputs)], [*map(element_type, self.outputs)])
