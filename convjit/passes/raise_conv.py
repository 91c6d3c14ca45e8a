"""`raise-conv`: MLX's `Convolution` becomes `conv.general`.

    %y = mlx.primitive "Convolution"(%x, %conv1.weight) [array<i64: 2, 2>, array<i64: 1, 1>, array<i64: 1, 1>, ...]
->
    %y = conv.general %x, %conv1.weight window <strides = [2, 2], pad = [1, 1] : [1, 1], ...> layer "conv1"

1D, 2D and 3D, transposed, grouped, dilated and flipped alike. `layer` is the path of the module that holds the
weight; a second use of the same weight is "conv1#2". What stays a primitive: dtypes other than f32, f16 and bf16,
empty batches, geometries that do not exist, and convolutions that carry a `refused` attribute (a backend's reason).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.ir import BlockArgument, Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter

from convjit.geometry import Geometry, GeometryError, Window
from convjit.ir.conv import GeneralOp
from convjit.ir.mlx import PrimitiveOp, is_primitive
from convjit.ir.types import element_type, shape_of
from convjit.passes.elementwise import FLOAT_TYPES
from convjit.passes.values import argument_attribute, forward_of, numbered


def window_of(op: PrimitiveOp) -> Window:
    """The window in the arguments of a `Convolution`."""
    return Window(*op.python_arguments)


def geometry_of(op: PrimitiveOp) -> Geometry:
    """The geometry of a `Convolution`; raises GeometryError if there is none."""
    x, w = op.operands
    return Geometry.of_shapes(shape_of(x.type), shape_of(w.type), window_of(op))


def is_as_defined(op: PrimitiveOp) -> bool:
    """Does the geometry of a `Convolution` exist, and does MLX compute all of it?"""
    try:
        return geometry_of(op).out_shape == shape_of(op.results[0].type)
    except GeometryError:
        return False


def named_convolutions(module: ModuleOp) -> Iterator[tuple[str, PrimitiveOp]]:
    """Every `Convolution` with its layer's name, unique in the module, in program order.

    A convolution that was given its name by a pass keeps it.
    """
    counts: dict[str, int] = {}
    for function in forward_of(module):
        for op in function.body.block.ops:
            if is_primitive(op, "Convolution"):
                given = op.attributes.get("layer")
                if isinstance(given, StringAttr):
                    yield given.data, op
                    continue
                name = layer_behind(op.operands[1])
                counts[name] = counts.get(name, 0) + 1
                yield numbered(name, counts[name]), op


def layer_behind(weight: SSAValue, otherwise: str = "conv") -> str:
    """The path of the module that holds a weight, looked for through what is done to it first."""
    while isinstance(weight.owner, Operation) and weight.owner.operands:
        weight = weight.owner.operands[0]
    name = argument_attribute(weight, "mlx.name") if isinstance(weight, BlockArgument) else None
    return otherwise if name is None else layer_of(name, otherwise)


def layer_of(weight: str, otherwise: str = "conv") -> str:
    """The path of the module that holds the weight of this name."""
    return weight.removesuffix(".weight") if weight != "weight" else otherwise


def _can_be_raised(op: PrimitiveOp) -> bool:
    x, w = op.operands
    types = {element_type(v) for v in (x, w, op.results[0])}
    return len(types) == 1 and types.pop() in FLOAT_TYPES and 0 not in shape_of(x.type) and is_as_defined(op)


@dataclass(frozen=True)
class RaiseConvPass(ModulePass):
    """See the module's docstring."""

    name = "raise-conv"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for layer, conv in list(named_convolutions(op)):
            conv.attributes["layer"] = StringAttr(layer)
            if "refused" in conv.attributes or not _can_be_raised(conv):
                continue
            x, w = conv.operands
            new = GeneralOp(x, w, window_of(conv), conv.results[0].type, StringAttr(layer))
            new.location = conv.location
            Rewriter.replace_op(conv, new)
