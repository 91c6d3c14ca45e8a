"""`conv.pool` and `conv.pool_gradient`: maxima or averages of windows, and the gradients of maxima.

%m = conv.pool "max" of %x kernel <[3, 3]> window <strides = ...> : tensor<...> -> tensor<...>

%g = conv.pool_gradient %x, %m, %dm kernel <[3, 3]> window <strides = ...> : tensor<...>, ... -> tensor<...>
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from xdsl.dialects.builtin import StringAttr, TensorType
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import (
    IRDLOperation,
    irdl_op_definition,
    operand_def,
    opt_prop_def,
    prop_def,
    result_def,
    traits_def,
)
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from convjit.geometry import Geometry, GeometryError
from convjit.ir.attributes import NumbersAttr, ScheduleAttr, WindowAttr
from convjit.ir.types import element_type, shape_of
from convjit.kernel import PoolKind


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
        return _geometry(self)

    @property
    def is_of_whole_images(self) -> bool:
        """Is there one window, that of all pixels and no padding?"""
        window = self.window.data
        return self.kernel.data == shape_of(self.input.type)[1:-1] and not any((*window.pad_lo, *window.pad_hi))

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
        return _geometry(self)

    def verify_(self) -> None:
        _check_pool(self, {"pooled": self.pooled, "gradient": self.gradient})
        if self.result.type != self.input.type:
            raise VerifyException(f"the gradient of {self.input.type} cannot be {self.result.type}")


def _geometry(op: PoolOp | PoolGradientOp) -> Geometry:
    shape = shape_of(op.input.type)
    return Geometry.of_shapes(shape, (shape[-1], *op.kernel.data, 1), op.window.data)


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
