"""The `mlx` dialect: MLX's primitives, verbatim. What stays in it is handed back to MLX.

%y = mlx.primitive "Broadcast"(%b) [array<i64: 1, 8, 8, 16>]
    : (tensor<16xf32>) -> tensor<1x8x8x16xf32>
%c = mlx.constant 2.0 : f64 : tensor<f32>
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeGuard

from xdsl.dialects.builtin import ArrayAttr, FloatAttr, IntegerAttr, StringAttr, TensorType
from xdsl.ir import Attribute, Block, Dialect, Operation, SSAValue
from xdsl.irdl import (
    IRDLOperation,
    irdl_op_definition,
    prop_def,
    result_def,
    traits_def,
    var_operand_def,
    var_result_def,
)
from xdsl.traits import ConstantLike, Pure
from xdsl.utils.exceptions import VerifyException

from convjit.ir.types import from_attribute, to_attribute


@irdl_op_definition
class PrimitiveOp(IRDLOperation):
    """One MLX primitive: its name, its inputs, and its arguments in MLX's own order.

    All primitives are pure: `RandomBits` reads a key, and the program returns the next random state.
    """

    name = "mlx.primitive"

    primitive = prop_def(StringAttr)
    arguments = prop_def(ArrayAttr)
    inputs = var_operand_def(TensorType)
    outputs = var_result_def(TensorType)

    traits = traits_def(Pure())
    assembly_format = "$primitive `(` $inputs `)` $arguments attr-dict `:` functional-type($inputs, $outputs)"

    def __init__(
        self,
        primitive: str,
        inputs: Sequence[SSAValue],
        result_types: Sequence[Attribute],
        arguments: Sequence[object] = (),
    ):
        # IRDLOperation's own constructor matches values with definitions, which doubles the time of a trace.
        Operation.__init__(
            self,
            operands=inputs,
            result_types=result_types,
            properties={
                "primitive": StringAttr(primitive),
                "arguments": ArrayAttr([to_attribute(a) for a in arguments]),
            },
        )

    @property
    def python_arguments(self) -> tuple[Any, ...]:
        """The arguments as Python values."""
        return from_attribute(self.arguments)


@irdl_op_definition
class ConstantOp(IRDLOperation):
    """A scalar that MLX captured: 0 in a ReLU, sqrt(2) in a GELU. Larger constants are inputs of the program."""

    name = "mlx.constant"

    value = prop_def(FloatAttr | IntegerAttr)
    output = result_def(TensorType)

    traits = traits_def(Pure(), ConstantLike())
    assembly_format = "$value attr-dict `:` type($output)"

    def __init__(self, value: float | int | bool, result_type: TensorType[Any]):
        super().__init__(properties={"value": to_attribute(value)}, result_types=[result_type])

    def verify_(self) -> None:
        if self.output.type.get_shape():  # pyright: ignore[reportAttributeAccessIssue]
            raise VerifyException("an mlx.constant is a scalar")

    @property
    def python_value(self) -> float | int | bool:
        return from_attribute(self.value)


def is_primitive(op: Operation | Block, *names: str) -> TypeGuard[PrimitiveOp]:
    """Is `op` one of these MLX primitives?"""
    return isinstance(op, PrimitiveOp) and op.primitive.data in names


SUM = 2
"""The number of the sum among the kinds of a `Reduce`."""

MLX = Dialect("mlx", [PrimitiveOp, ConstantOp], [])
