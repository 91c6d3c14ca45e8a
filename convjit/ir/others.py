"""The kernels of the `conv` dialect that are no convolutions.

%z, %total = conv.elementwise over <[8, 32, 32, 16]> sums <[1]> (%y, %b) {
^bb0(%y1: f32, %b1: f32):
  %s = arith.addf %y1, %b1 : f32
  conv.yield %s, %s : f32, f32
} : (tensor<8x32x32x16xf32>, tensor<16xf32>) -> tensor<8x32x32x16xf32>, tensor<16xf32>

%m = conv.pool "max" of %x kernel <[3, 3]> window <strides = ...> : tensor<...> -> tensor<...>

%g = conv.pool_gradient %x, %m, %dm kernel <[3, 3]> window <strides = ...> : tensor<...>, ... -> tensor<...>

%n = conv.norm %x as <[1, 64, 4, 8]> eps 1.0e-05 : f64 centered extras(%s : tensor<32xf32>) {
^bb0(%normalised: f32, %scale: f32):
  %p = arith.mulf %normalised, %scale : f32
  conv.yield %p : f32
} : tensor<1x8x8x32xf32> -> tensor<1x8x8x32xf32>

%p = conv.softmax %x : tensor<1x8x8x32xf32> -> tensor<1x8x8x32xf32>
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import get_args

from xdsl.dialects.builtin import Float64Type, FloatAttr, StringAttr, TensorType, UnitAttr
from xdsl.ir import Attribute, Region, SSAValue
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

from convjit.geometry import Geometry, GeometryError
from convjit.ir.attributes import NumbersAttr, ScheduleAttr, WindowAttr
from convjit.ir.bodies import broadcasts, check_body, check_epilogue
from convjit.ir.types import element_type, shape_of, without_leading_ones
from convjit.kernel import PoolKind


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
        _check_pool(self, {"result": self.result})


@irdl_op_definition
class PoolGradientOp(IRDLOperation):
    """The gradient of a "max" pool with respect to its input, see `kernel.PoolGradient`: one kernel.

    `kernel` and `window` are those of the pool, `pooled` is its result, and `gradient` that with respect to it; extents
    of 1 in the shapes of the latter two do not count. `layer` is the name that `raise-pool-gradient` gave it.
    """

    name = "conv.pool_gradient"

    input = operand_def(TensorType)
    pooled = operand_def(TensorType)
    gradient = operand_def(TensorType)
    kernel = prop_def(NumbersAttr)
    window = prop_def(WindowAttr)
    layer = opt_prop_def(StringAttr)
    schedule = opt_prop_def(ScheduleAttr)
    result = result_def(TensorType)

    traits = traits_def(Pure())
    assembly_format = (
        "$input `,` $pooled `,` $gradient `kernel` $kernel `window` $window (`layer` $layer^)? "
        "(`schedule` $schedule^)? attr-dict `:` type($input) `,` type($pooled) `,` type($gradient) `->` type($result)"
    )

    def __init__(
        self, input: SSAValue, pooled: SSAValue, gradient: SSAValue, geometry: Geometry, layer: StringAttr | None = None
    ):
        super().__init__(
            operands=[input, pooled, gradient],
            properties={
                "kernel": NumbersAttr(geometry.kernel),
                "window": WindowAttr(geometry.window),
                "layer": layer,
            },
            result_types=[input.type],
        )

    @property
    def geometry(self) -> Geometry:
        shape = shape_of(self.input.type)
        return Geometry.of_shapes(shape, (shape[-1], *self.kernel.data, 1), self.window.data)

    def verify_(self) -> None:
        _check_pool(self, {"pooled": self.pooled, "gradient": self.gradient})
        if self.result.type != self.input.type:
            raise VerifyException(f"the gradient of {self.input.type} cannot be {self.result.type}")


def _check_pool(op: PoolOp | PoolGradientOp, outputs: Mapping[str, SSAValue]) -> None:
    """Is the window that of a pool, and does each of `outputs` hold a number for each window?

    Raises:
        VerifyException: if not.
    """
    try:
        geometry = op.geometry
    except GeometryError as e:
        raise VerifyException(str(e)) from e
    window = geometry.window
    if window.transposed or window.flip or max(window.kernel_dilation) > 1:
        raise VerifyException("a pool's window is neither dilated nor flipped")
    for name, value in outputs.items():
        shape = shape_of(value.type)
        if [n for n in shape if n != 1] != [n for n in geometry.out_shape if n != 1]:
            raise VerifyException(f"expected {name} shape {list(geometry.out_shape)}, got {list(shape)}")
        read, other = element_type(op.input), element_type(value)
        if read != other:
            raise VerifyException(f"the input has elements of type {read}, the {name} of type {other}")


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
        check_epilogue(self, shape)


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


OtherOp = ElementwiseOp | PoolOp | PoolGradientOp | NormOp | SoftmaxOp
"""Any of them."""
