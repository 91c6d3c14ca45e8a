"""The `conv` dialect: convolutions as MLX defines them, and convolutions fused with what follows.

%y = conv.general %x, %w window <strides = ...> : (tensor<...>, tensor<...>) -> tensor<...>

%y = conv.fused %x, %w window <strides = ...> extras(%b : tensor<16xf32>) {
^bb0(%sum: f32, %bias: f32):
  %s = arith.addf %sum, %bias : f32
  conv.yield %s : f32
} : (tensor<...>, tensor<...>) -> tensor<...>

%dw = conv.weight_gradient %x, %dy window <strides = ...> : (tensor<...>, tensor<...>) -> tensor<...>

%z, %total = conv.elementwise over <[8, 32, 32, 16]> sums <[1]> (%y, %b) {
^bb0(%y1: f32, %b1: f32):
  %s = arith.addf %y1, %b1 : f32
  conv.yield %s, %s : f32, f32
} : (tensor<8x32x32x16xf32>, tensor<16xf32>) -> tensor<8x32x32x16xf32>, tensor<16xf32>

%m = conv.pool "max" of %x kernel <[3, 3]> window <strides = ...> : tensor<...> -> tensor<...>

%n = conv.norm %x as <[1, 64, 4, 8]> eps 1.0e-05 : f64 centered extras(%s : tensor<32xf32>) {
^bb0(%normalised: f32, %scale: f32):
  %p = arith.mulf %normalised, %scale : f32
  conv.yield %p : f32
} : tensor<1x8x8x32xf32> -> tensor<1x8x8x32xf32>

%p = conv.softmax %x : tensor<1x8x8x32xf32> -> tensor<1x8x8x32xf32>
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, get_args

from xdsl.dialects.builtin import Float64Type, FloatAttr, StringAttr, TensorType, UnitAttr, f32
from xdsl.dialects.utils import AbstractYieldOperation
from xdsl.ir import Attribute, Dialect, Region, SSAValue
from xdsl.irdl import (
    IRDLOperation,
    irdl_op_definition,
    lazy_traits_def,
    operand_def,
    opt_prop_def,
    prop_def,
    region_def,
    result_def,
    traits_def,
    var_operand_def,
    var_result_def,
)
from xdsl.traits import HasParent, IsolatedFromAbove, IsTerminator, Pure
from xdsl.utils.exceptions import VerifyException

from convjit.geometry import Geometry, GeometryError, Window
from convjit.ir.attributes import NumbersAttr, PackedType, ScheduleAttr, WindowAttr
from convjit.ir.types import element_type, shape_of
from convjit.kernel import PoolKind


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


def _check_body(body: Region, arguments: Sequence[Attribute], results: Sequence[Attribute]) -> None:
    """Raises VerifyException unless the block of `body` takes and yields values of these types."""
    block = body.block
    if [argument.type for argument in block.args] != list(arguments):
        raise VerifyException(f"expected block arguments of the types {_in_words(arguments)}")
    terminator = block.last_op
    if not isinstance(terminator, YieldOp) or [v.type for v in terminator.arguments] != list(results):
        raise VerifyException(f"expected a conv.yield of {_in_words(results)}")


def _in_words(types: Sequence[Attribute]) -> str:
    return f"({', '.join(map(str, types))})"


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
class YieldOp(AbstractYieldOperation[Attribute]):
    """What an epilogue, the body of an elementwise kernel or a stretch hands back."""

    name = "conv.yield"

    traits = lazy_traits_def(lambda: (IsTerminator(), HasParent(FusedOp, ElementwiseOp, NormOp, StretchOp)))


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
        _check_epilogue(self, self.geometry.out_shape)


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
            if not _broadcasts(shape, extents):
                raise VerifyException(f"an input of shape {list(shape)} does not broadcast to {list(extents)}")
        for number, result in enumerate(self.outputs):
            expected = extents[-1:] if number in self.summed else extents
            if without_leading_ones(shape_of(result.type)) != without_leading_ones(expected):
                raise VerifyException(f"result {number} has shape {list(shape_of(result.type))}, not {list(expected)}")
        _check_body(self.body, [*map(element_type, self.inputs)], [*map(element_type, self.outputs)])


def _check_epilogue(op: FusedOp | NormOp, shape: tuple[int, ...]) -> None:
    """Raises VerifyException unless the epilogue fits a result of this shape."""
    for extra in op.extras:
        if not _broadcasts(shape_of(extra.type), shape):
            raise VerifyException(f"an extra of shape {list(shape_of(extra.type))} does not broadcast to {list(shape)}")
    _check_body(op.body, [f32, *map(element_type, op.extras)], [*map(element_type, op.outputs)])


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    """As in NumPy."""
    behind = to[len(to) - len(shape) :]
    return len(shape) <= len(to) and all(s in (1, t) for s, t in zip(shape, behind, strict=True))


def without_leading_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """`shape` from its first extent that is not 1 on."""
    first = next((axis for axis, extent in enumerate(shape) if extent != 1), len(shape))
    return shape[first:]


@irdl_op_definition
class PoolOp(IRDLOperation):
    """One number for what a window holds of each channel, see `kernel.Pool`: one kernel.

    `kernel` are the extents of the window, `window` that of a depthwise convolution, without flip or dilation. Extents
    of 1 in the result's shape do not count. `layer` is the name that `raise-pool` gave it.
    """

    name = "conv.pool"

    kind = prop_def(StringAttr)
    input = operand_def(TensorType)
    kernel = prop_def(NumbersAttr)
    window = prop_def(WindowAttr)
    layer = opt_prop_def(StringAttr)
    schedule = opt_prop_def(ScheduleAttr)
    result = result_def(TensorType)

    traits = traits_def(Pure())
    assembly_format = (
        "$kind `of` $input `kernel` $kernel `window` $window (`layer` $layer^)? (`schedule` $schedule^)? attr-dict "
        "`:` type($input) `->` type($result)"
    )

    def __init__(
        self,
        kind: PoolKind,
        input: SSAValue,
        geometry: Geometry,
        result_type: Attribute,
        layer: StringAttr | None = None,
    ):
        super().__init__(
            operands=[input],
            properties={
                "kind": StringAttr(kind),
                "kernel": NumbersAttr(geometry.kernel),
                "window": WindowAttr(geometry.window),
                "layer": layer,
            },
            result_types=[result_type],
        )

    @property
    def geometry(self) -> Geometry:
        shape = shape_of(self.input.type)
        return Geometry.of_shapes(shape, (shape[-1], *self.kernel.data, 1), self.window.data)

    def verify_(self) -> None:
        if self.kind.data not in get_args(PoolKind):
            raise VerifyException(f"a pool is one of {get_args(PoolKind)}, not {self.kind.data!r}")
        try:
            geometry = self.geometry
        except GeometryError as e:
            raise VerifyException(str(e)) from e
        window = geometry.window
        if window.transposed or window.flip or max(window.kernel_dilation) > 1:
            raise VerifyException("a pool's window is neither dilated nor flipped")
        shape = shape_of(self.result.type)
        if [n for n in shape if n != 1] != [n for n in geometry.out_shape if n != 1]:
            raise VerifyException(f"expected result shape {list(geometry.out_shape)}, got {list(shape)}")
        read, written = element_type(self.input), element_type(self.result)
        if read != written:
            raise VerifyException(f"the input has elements of type {read}, the result of type {written}")


@irdl_op_definition
class NormOp(IRDLOperation):
    """(x - mean) / sqrt(variance + eps), and a scalar epilogue: one kernel.

    `view` is the input's shape as (images, pixels, groups, channels of a group): the pixels of an image and the
    channels of a group have statistics together. Without `centered` the mean counts as 0, which is for one pixel and
    one group only. The region is that of `conv.fused`; its first argument is what is normalised. `layer` is the name
    that `raise-norm` gave it.
    """

    name = "conv.norm"

    input = operand_def(TensorType)
    extras = var_operand_def(TensorType)
    view = prop_def(NumbersAttr)
    eps = prop_def(FloatAttr)
    centered = opt_prop_def(UnitAttr)
    layer = opt_prop_def(StringAttr)
    schedule = opt_prop_def(ScheduleAttr)
    body = region_def("single_block")
    outputs = var_result_def(TensorType)

    traits = traits_def(Pure(), IsolatedFromAbove())
    assembly_format = (
        "$input `as` $view `eps` $eps (`centered` $centered^)? (`layer` $layer^)? (`schedule` $schedule^)? "
        "(`extras` `(` $extras^ `:` type($extras) `)`)? $body attr-dict `:` type($input) `->` type($outputs)"
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
        layer: StringAttr | None = None,
    ):
        super().__init__(
            operands=[input, extras],
            properties={
                "view": NumbersAttr(tuple(view)),
                "eps": FloatAttr(eps, Float64Type()),
                "centered": UnitAttr() if centered else None,
                "layer": layer,
            },
            regions=[body],
            result_types=[result_types],
        )

    @classmethod
    def like(cls, other: NormOp, extras: Sequence[SSAValue], body: Region, result_types: Sequence[Attribute]) -> NormOp:
        """The same norm with another epilogue."""
        centered = other.centered is not None
        view, eps = other.view.data, other.eps.value.data
        return cls(other.input, extras, view, eps, body, result_types, centered=centered, layer=other.layer)

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
        _check_epilogue(self, shape)


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


ConvolutionOp = FusedOp | WeightGradientOp
"""The kernels that stand for a convolution of the user's program."""

OtherOp = ElementwiseOp | PoolOp | NormOp | SoftmaxOp
"""The other kernels."""

KernelOp = ConvolutionOp | OtherOp
"""The ops that are kernels."""


def name_of(op: KernelOp) -> str:
    """What people call a kernel: its `layer`."""
    return op.layer.data if op.layer else op.name.removeprefix("conv.") if isinstance(op, OtherOp) else "conv"


@irdl_op_definition
class PackOp(IRDLOperation):
    """A weight in the order in which a kernel with this window and schedule reads it."""

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
    outputs = var_result_def(TensorType)

    traits = traits_def(Pure(), IsolatedFromAbove())
    assembly_format = "`(` $inputs `)` $body attr-dict `:` functional-type($inputs, $outputs)"

    def __init__(self, inputs: Sequence[SSAValue], body: Region, result_types: Sequence[Attribute]):
        super().__init__(operands=[inputs], regions=[body], result_types=[result_types])

    def verify_(self) -> None:
        _check_body(self.body, self.inputs.types, self.outputs.types)


CONV = Dialect(
    "conv",
    [GeneralOp, FusedOp, WeightGradientOp, ElementwiseOp, PoolOp, NormOp, SoftmaxOp, PackOp, StretchOp, YieldOp],
    [WindowAttr, NumbersAttr, ScheduleAttr, PackedType],
)
