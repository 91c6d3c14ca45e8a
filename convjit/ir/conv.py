"""The `conv` dialect: convolutions as MLX defines them, and convolutions fused with what follows.

%y = conv.general %x, %w window <strides = ...> : (tensor<...>, tensor<...>) -> tensor<...>

%y = conv.fused %x, %w window <strides = ...> extras(%b : tensor<16xf32>) {
^bb0(%sum: f32, %bias: f32):
  %s = arith.addf %sum, %bias : f32
  conv.yield %s : f32
} : (tensor<...>, tensor<...>) -> tensor<...>

%dw = conv.weight_gradient %x, %dy window <strides = ...> : (tensor<...>, tensor<...>) -> tensor<...>

The other kernels of the dialect are in `others.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xdsl.dialects.builtin import StringAttr, TensorType
from xdsl.ir import Attribute, Dialect, Region, SSAValue
from xdsl.irdl import (
    IRDLOperation,
    irdl_op_definition,
    operand_def,
    opt_prop_def,
    prop_def,
    region_def,
    result_def,
    traits_def,
    var_operand_def,
    var_result_def,
)
from xdsl.traits import IsolatedFromAbove, Pure
from xdsl.utils.exceptions import VerifyException

from convjit.geometry import Geometry, GeometryError, Window
from convjit.ir.attributes import NumbersAttr, PackedType, ScheduleAttr, WindowAttr
from convjit.ir.bodies import YieldOp, check_body, check_epilogue
from convjit.ir.elementwise import ElementwiseOp
from convjit.ir.norm import NormOp
from convjit.ir.others import OtherOp
from convjit.ir.pool import PoolGradientOp, PoolOp
from convjit.ir.rearrange import PartsAttr, RearrangeOp, ViewOp
from convjit.ir.softmax import SoftmaxOp
from convjit.ir.types import element_type, shape_of


def weight_type(type_: Attribute) -> TensorType[Any]:
    """The type of a weight (O, *kernel, C / groups), packed or not."""
    if isinstance(type_, PackedType):
        return type_.weight
    assert isinstance(type_, TensorType)
    return type_


def checked_geometry(x: SSAValue, w: SSAValue, window: Window, results: Sequence[SSAValue]) -> Geometry:
    """The geometry of a convolution op; raises VerifyException unless its types and shapes fit."""
    assert isinstance(x.type, TensorType)
    read = x.type.get_element_type(), weight_type(w.type).get_element_type()
    if read[0] != read[1]:
        raise VerifyException(f"the input has elements of type {read[0]}, the weight of type {read[1]}")
    try:
        geometry = Geometry.of_shapes(shape_of(x.type), weight_type(w.type).get_shape(), window)
    except GeometryError as e:
        raise VerifyException(str(e)) from e
    expected = geometry.out_shape if window.rank else (*shape_of(x.type)[:-1], geometry.out_channels)
    for result in results:
        if shape_of(result.type) != expected:
            raise VerifyException(f"expected result shape {list(expected)}, got {list(shape_of(result.type))}")
    return geometry


@irdl_op_definition
class GeneralOp(IRDLOperation):
    """A convolution, as `mx.conv_general` defines it: channels last, no epilogue.

    With a window of no axes it is the product of an input (..., C) with a matrix (O, C) along the last axis: (..., O);
    or of (N, M, C) with (N, O, C), a matrix for each image: (N, M, O).
    `layer` is the path of the user's module or argument whose weight it reads, for people.
    """

    name = "conv.general"

    input = operand_def(TensorType)
    weight = operand_def(TensorType)
    window = prop_def(WindowAttr)
    layer = opt_prop_def(StringAttr)
    result = result_def(TensorType)

    traits = traits_def(Pure())
    assembly_format = (
        "$input `,` $weight `window` $window (`layer` $layer^)? attr-dict "
        "`:` `(` type($input) `,` type($weight) `)` `->` type($result)"
    )

    def __init__(
        self,
        input: SSAValue,
        weight: SSAValue,
        window: Window,
        result_type: Attribute,
        layer: StringAttr | None = None,
    ):
        super().__init__(
            operands=[input, weight],
            properties={"window": WindowAttr(window), "layer": layer},
            result_types=[result_type],
        )

    @property
    def geometry(self) -> Geometry:
        return checked_geometry(self.input, self.weight, self.window.data, [self.result])

    def verify_(self) -> None:
        _ = self.geometry
        read, written = weight_type(self.weight.type).get_element_type(), self.result.type.get_element_type()
        if read != written:
            raise VerifyException(f"the input has elements of type {read}, the result of type {written}")


@irdl_op_definition
class FusedOp(IRDLOperation):
    """A convolution and its scalar epilogue: one kernel.

    The region runs once for each output element. Its first argument is the sum (always f32), the others are the
    matching elements of `extras`, which broadcast to the output as in NumPy. It yields one element a result.
    """

    name = "conv.fused"

    input = operand_def(TensorType)
    weight = operand_def(TensorType | PackedType)
    extras = var_operand_def(TensorType)
    window = prop_def(WindowAttr)
    layer = opt_prop_def(StringAttr)
    schedule = opt_prop_def(ScheduleAttr)
    body = region_def("single_block")
    outputs = var_result_def(TensorType)

    traits = traits_def(Pure(), IsolatedFromAbove())
    assembly_format = (
        "$input `,` $weight `window` $window (`layer` $layer^)? (`schedule` $schedule^)? "
        "(`extras` `(` $extras^ `:` type($extras) `)`)? $body attr-dict "
        "`:` `(` type($input) `,` type($weight) `)` `->` type($outputs)"
    )

    def __init__(
        self,
        input: SSAValue,
        weight: SSAValue,
        extras: Sequence[SSAValue],
        window: Window,
        body: Region,
        result_types: Sequence[Attribute],
        layer: StringAttr | None = None,
        schedule: ScheduleAttr | None = None,
    ):
        super().__init__(
            operands=[input, weight, extras],
            properties={"window": WindowAttr(window), "layer": layer, "schedule": schedule},
            regions=[body],
            result_types=[result_types],
        )

    @property
    def geometry(self) -> Geometry:
        return checked_geometry(self.input, self.weight, self.window.data, self.outputs)

    @property
    def has_own_weights(self) -> bool:
        """Is it a product with a matrix for each image?"""
        return self.window.data.rank == 0 and len(weight_type(self.weight.type).get_shape()) > 2

    def verify_(self) -> None:
        check_epilogue(self, self.geometry.out_shape)


@irdl_op_definition
class WeightGradientOp(IRDLOperation):
    """The gradient of a convolution with respect to its weight, of its input and its output's gradient: one kernel.

    `window` is that of the convolution, neither transposed nor flipped; the result is (O, *kernel, C / groups), and
    dw[o, k, c] is the sum over images and outputs y of dy[y, o] * x[y * stride - pad + k * dilation, c], channels c
    counted within the group of o, and x zero outside.
    """

    name = "conv.weight_gradient"

    input = operand_def(TensorType)
    output_gradient = operand_def(TensorType)
    window = prop_def(WindowAttr)
    layer = opt_prop_def(StringAttr)
    schedule = opt_prop_def(ScheduleAttr)
    result = result_def(TensorType)

    traits = traits_def(Pure())
    assembly_format = (
        "$input `,` $output_gradient `window` $window (`layer` $layer^)? (`schedule` $schedule^)? attr-dict "
        "`:` `(` type($input) `,` type($output_gradient) `)` `->` type($result)"
    )

    def __init__(
        self,
        input: SSAValue,
        output_gradient: SSAValue,
        window: Window,
        result_type: Attribute,
        layer: StringAttr | None = None,
    ):
        super().__init__(
            operands=[input, output_gradient],
            properties={"window": WindowAttr(window), "layer": layer},
            result_types=[result_type],
        )

    @property
    def geometry(self) -> Geometry:
        """Of the convolution whose weight it is."""
        return checked_geometry(self.input, self.result, self.window.data, [self.output_gradient])

    def verify_(self) -> None:
        _ = self.geometry
        if self.window.data.transposed or self.window.data.flip:
            raise VerifyException("a weight gradient's window is neither transposed nor flipped")
        read, given = element_type(self.input), element_type(self.output_gradient)
        if read != given:
            raise VerifyException(f"the input has elements of type {read}, the gradient of the output of type {given}")


ConvolutionOp = FusedOp | WeightGradientOp
"""The kernels that stand for a convolution of the user's program."""

KernelOp = ConvolutionOp | OtherOp
"""The ops that are kernels."""


def name_of(op: KernelOp) -> str:
    """What people call a kernel: its `layer`."""
    return op.layer.data if op.layer else op.name.removeprefix("conv.") if isinstance(op, OtherOp) else "conv"


@irdl_op_definition
class PackOp(IRDLOperation):
    """A weight in the order in which a kernel with this window and schedule reads it.

    One that kernels make is packed between them, in a stretch, where the backend can do that.
    """

    name = "conv.pack"

    weight = operand_def(TensorType)
    window = prop_def(WindowAttr)
    schedule = prop_def(ScheduleAttr)
    result = result_def(PackedType)

    traits = traits_def(Pure())
    assembly_format = "$weight `window` $window `schedule` $schedule attr-dict `:` type($weight) `->` type($result)"

    def __init__(self, weight: SSAValue, window: WindowAttr, schedule: ScheduleAttr):
        super().__init__(
            operands=[weight],
            properties={"window": window, "schedule": schedule},
            result_types=[PackedType(weight_type(weight.type))],
        )

    def verify_(self) -> None:
        if weight_type(self.result.type) != self.weight.type:
            raise VerifyException(f"a packed {self.weight.type} is not a {self.result.type}")


@irdl_op_definition
class StretchOp(IRDLOperation):
    """Kernels that run back to back, without a plain MLX op between them: the unit of execution."""

    name = "conv.stretch"

    inputs = var_operand_def(TensorType | PackedType)
    body = region_def("single_block")
    outputs = var_result_def(TensorType | PackedType)

    traits = traits_def(Pure(), IsolatedFromAbove())
    assembly_format = "`(` $inputs `)` $body attr-dict `:` functional-type($inputs, $outputs)"

    def __init__(self, inputs: Sequence[SSAValue], body: Region, result_types: Sequence[Attribute]):
        super().__init__(operands=[inputs], regions=[body], result_types=[result_types])

    def verify_(self) -> None:
        check_body(self.body, self.inputs.types, self.outputs.types)


CONV = Dialect(
    "conv",
    [
        GeneralOp,
        FusedOp,
        WeightGradientOp,
        ElementwiseOp,
        PoolOp,
        PoolGradientOp,
        NormOp,
        SoftmaxOp,
        RearrangeOp,
        ViewOp,
        PackOp,
        StretchOp,
        YieldOp,
    ],
    [WindowAttr, NumbersAttr, PartsAttr, ScheduleAttr, PackedType],
)
