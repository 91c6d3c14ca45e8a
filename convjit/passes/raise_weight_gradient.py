"""`raise-weight-gradient`: the primitives that give a convolution's weight gradient become `conv.weight_gradient`.

    %p = mlx.primitive "Pad"(%x, %zero) ...                    // the patches of all pixels, in memory
    %f = mlx.primitive "Flatten"(%p) ...
    %s = mlx.primitive "AsStrided"(%f) ...
    %m = mlx.primitive "Reshape"(%s) ...
    %r = mlx.primitive "Reshape"(%dy) ...
    %t = mlx.primitive "Transpose"(%r) [array<i64: 1, 0>]
    %g = mlx.primitive "Matmul"(%t, %m)
    %dw = mlx.primitive "Reshape"(%g) ...
->
    %dw = conv.weight_gradient %x, %dy window <strides = [2, 2], pad = [1, 1] : [1, 1], ...> layer "conv1.weight.grad"

So does, where the convolution is dilated or grouped, the convolution of transposed arrays with a kernel as large as the
output:

    %xt = mlx.primitive "Transpose"(%x) [array<i64: 3, 1, 2, 0>]     // of groups: "Reshape", "Transpose", "Flatten"
    %dyt = mlx.primitive "Transpose"(%dy) [array<i64: 3, 1, 2, 0>]
    %g = mlx.primitive "Convolution"(%xt, %dyt) ...
    %dw = mlx.primitive "Transpose"(%g) [array<i64: 3, 1, 2, 0>]

and, where it is transposed, the same with the result mirrored by a "Slice": it is the gradient of the plain convolution
from its output to its input, with the channels exchanged behind it.

What a backend refused stays what MLX traced: the last op of the first form has an attribute `refused` then.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter

from convjit.geometry import Geometry, GeometryError, Window
from convjit.ir.conv import WeightGradientOp
from convjit.ir.mlx import PrimitiveOp, is_primitive
from convjit.ir.types import dtype_of, element_type, shape_of, tensor_type
from convjit.passes.elementwise import FLOAT_TYPES
from convjit.passes.raise_conv import is_as_defined, layer_of, named_convolutions, window_of
from convjit.passes.values import constant_of, erase_dead_ops, forward_of, made_by, numbered


@dataclass(frozen=True, slots=True)
class WeightGradient:
    """A weight gradient that MLX's primitives compute.

    Attributes:
        root: the op whose result it is.
        input, output_gradient: what it is computed from.
        geometry: of a convolution from one to the other.
        exchanges: is `root` this gradient with input and output channels exchanged?
    """

    root: PrimitiveOp
    input: SSAValue
    output_gradient: SSAValue
    geometry: Geometry
    exchanges: bool = False


def named_weight_gradients(module: ModuleOp) -> Iterator[tuple[str, WeightGradient]]:
    """Every weight gradient with its layer's name, unique in the module, in program order."""
    layers = {
        (conv.operands[0], shape_of(conv.operands[1].type)): layer
        for layer, conv in reversed([*named_convolutions(module)])
    }
    counts: dict[str, int] = {}
    for function in forward_of(module):
        for op in function.body.block.ops:
            found = _gradient(op)
            if found is None:
                continue
            x = found.output_gradient if found.exchanges else found.input
            weight = _gradient_by(found.root.results[0])
            layer = layer_of(weight) if weight else layers.get((x, shape_of(found.root.results[0].type)), "conv")
            name = f"{layer}.weight.grad"
            counts[name] = counts.get(name, 0) + 1
            yield numbered(name, counts[name]), found


def _gradient(root: Operation) -> WeightGradient | None:
    return _of_patches(root) or _of_transposed(root)


def _gradient_by(value: SSAValue) -> str | None:
    """The argument whose gradient a value becomes, looked for through what is done to it first."""
    while use := next(iter(value.uses), None):
        user, function = use.operation, use.operation.parent_op()
        if isinstance(user, ReturnOp) and isinstance(function, FuncOp) and function.res_attrs:
            name = function.res_attrs.data[use.index].data.get("mlx.gradient_by")
            return name.data if isinstance(name, StringAttr) else None
        if not user.results:
            return None
        value = user.results[0]
    return None


def _of_patches(root: Operation | Block) -> WeightGradient | None:
    """The product of dy, transposed, with patches of the padded input."""
    if not is_primitive(root, "Reshape"):
        return None
    product = made_by(root.operands[0], "Matmul")
    transposed = product and made_by(product.operands[0], "Transpose")
    rows = transposed and made_by(transposed.operands[0], "Reshape")
    columns = product and made_by(product.operands[1], "Reshape")
    patches = columns and made_by(columns.operands[0], "AsStrided")
    flat = patches and made_by(patches.operands[0], "Flatten")
    if product is None or transposed is None or rows is None or columns is None or patches is None or flat is None:
        return None
    if transposed.python_arguments != ((1, 0),):
        return None
    dy, padded = rows.operands[0], flat.operands[0]
    rank = len(shape_of(dy.type)) - 2
    *pixels, outputs = shape_of(dy.type)
    weight, row_shape, matrix = (shape_of(op.results[0].type) for op in (root, rows, columns))
    if rank < 1 or len(weight) != rank + 2 or row_shape != (prod(pixels), outputs):
        return None
    if matrix != (prod(pixels), prod(weight[1:])) or len(shape_of(flat.results[0].type)) != 1:
        return None
    x, pad_lo, pad_hi = _unpadded(padded, rank)
    strides = strides_of_patches(patches, shape_of(padded.type), (*pixels, *weight[1:]), rank)
    if strides is None:
        return None
    one = (1,) * rank
    return _checked(root, x, dy, Window(strides, pad_lo, pad_hi, one, one), exchanges=False)


def _unpadded(padded: SSAValue, rank: int) -> tuple[SSAValue, tuple[int, ...], tuple[int, ...]]:
    """What is padded with zeros along its spatial axes, and by how much; any other value as it is."""
    pad = made_by(padded, "Pad")
    if pad is not None and constant_of(pad.operands[1]) == 0:
        axes, low, high = pad.python_arguments
        if tuple(axes) == tuple(range(1, rank + 1)):
            return pad.operands[0], tuple(low), tuple(high)
    return padded, (0,) * rank, (0,) * rank


def strides_of_patches(
    patches: PrimitiveOp, padded: tuple[int, ...], shape: tuple[int, ...], rank: int
) -> tuple[int, ...] | None:
    """The strides between the patches of neighbouring pixels, if `patches` are those of an array in row order."""
    if len(padded) != rank + 2 or shape_of(patches.results[0].type) != shape:
        return None
    _, steps, offset = patches.python_arguments
    in_order = [prod(padded[axis + 1 :]) for axis in range(rank + 2)]
    of_pixels, spatial = steps[1 : rank + 1], in_order[1:-1]
    if offset != 0 or [steps[0], *steps[rank + 1 :]] != [in_order[0], *spatial, 1]:
        return None
    if any(step % unit or step < unit for step, unit in zip(of_pixels, spatial, strict=True)):
        return None
    return tuple(step // unit for step, unit in zip(of_pixels, spatial, strict=True))


def _of_transposed(root: Operation | Block) -> WeightGradient | None:
    """The convolution of the input with dy, images and channels exchanged in all three."""
    mirrored = _exchanged(root)
    if mirrored is None:
        return None
    mirror = made_by(mirrored, "Slice")
    conv = made_by(mirror.operands[0] if mirror else mirrored, "Convolution")
    if conv is None or not is_as_defined(conv) or (mirror is not None and not _mirrors(mirror)):
        return None
    window, kernel = window_of(conv), shape_of(conv.results[0].type)[1:-1]
    x, dy = _input_of(conv.operands[0], window.groups), _exchanged(conv.operands[1].owner)
    if x is None or dy is None or window.flip:
        return None
    assert isinstance(root, PrimitiveOp)
    if mirror is None and not window.transposed:
        plain = _window(
            *(window.kernel_dilation, window.pad_lo, window.strides, window.groups),
            *(shape_of(x.type)[1:-1], kernel, shape_of(dy.type)[1:-1]),
        )
        return _checked(root, x, dy, plain, exchanges=False)
    if mirror is None or max(window.kernel_dilation) > 1 or min(window.pad_lo + window.pad_hi) < 0:
        return None
    pad_lo = tuple((k - 1) * d - lo for k, d, lo in zip(kernel, window.strides, window.pad_lo, strict=True))
    backwards = _window(
        *(window.input_dilation, pad_lo, window.strides, window.groups),
        *(shape_of(dy.type)[1:-1], kernel, shape_of(x.type)[1:-1]),
    )
    return _checked(root, dy, x, backwards, exchanges=True)


def _exchanged(op: Operation | Block) -> SSAValue | None:
    """What a transpose of the first axis with the last one reads."""
    if not is_primitive(op, "Transpose"):
        return None
    (axes,) = op.python_arguments
    last = len(axes) - 1
    return op.operands[0] if last >= 2 and tuple(axes) == (last, *range(1, last), 0) else None


def _input_of(value: SSAValue, groups: int) -> SSAValue | None:
    """What has its images and channels exchanged, (N, ..., C) -> (C / groups, ..., groups * N)."""
    if groups == 1:
        return _exchanged(value.owner)
    flat = made_by(value, "Flatten")
    transposed = flat and made_by(flat.operands[0], "Transpose")
    split = transposed and made_by(transposed.operands[0], "Reshape")
    if flat is None or transposed is None or split is None:
        return None
    x = split.operands[0]
    images, *spatial, channels = shape_of(x.type)
    last = len(spatial) + 2
    fits = (
        shape_of(split.results[0].type) == (images, *spatial, groups, channels // groups)
        and transposed.python_arguments == ((last, *range(1, last), 0),)
        and shape_of(value.type) == (channels // groups, *spatial, groups * images)
    )
    return x if fits else None


def _mirrors(op: PrimitiveOp) -> bool:
    """Does a slice reverse all spatial axes, and nothing else?"""
    starts, _, steps = op.python_arguments
    shape = shape_of(op.results[0].type)
    if shape != shape_of(op.operands[0].type) or (steps[0], steps[-1]) != (1, 1):
        return False
    spatial = [*zip(shape, starts, steps, strict=True)][1:-1]
    return all(extent == 1 or (start == extent - 1 and step == -1) for extent, start, step in spatial)


def _window(
    strides: tuple[int, ...],
    pad_lo: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
    in_size: tuple[int, ...],
    kernel: tuple[int, ...],
    out_size: tuple[int, ...],
) -> Window:
    """The window of a convolution between these extents; of the paddings at the end that do, the one most like that at
    the beginning."""
    pad_hi: list[int] = []
    for n, k, out, stride, lo, step in zip(in_size, kernel, out_size, strides, pad_lo, dilation, strict=True):
        least = (out - 1) * stride + (k - 1) * step + 1 - n - lo
        pad_hi.append(min(max(lo, least), least + stride - 1))
    return Window(strides, pad_lo, tuple(pad_hi), dilation, (1,) * len(strides), groups)


def _checked(root: PrimitiveOp, x: SSAValue, dy: SSAValue, window: Window, *, exchanges: bool) -> WeightGradient | None:
    """The weight gradient, if all shapes and types are those of one."""
    types = {element_type(v) for v in (x, dy, root.results[0])}
    if len(types) != 1 or types.pop() not in FLOAT_TYPES or 0 in shape_of(x.type) + shape_of(dy.type):
        return None
    outputs, *kernel, group_inputs = shape_of(root.results[0].type)
    if exchanges:
        outputs, group_inputs = group_inputs * window.groups, outputs // window.groups
    try:
        geometry = Geometry.of_shapes(shape_of(x.type), (outputs, *kernel, group_inputs), window)
    except GeometryError:
        return None
    return WeightGradient(root, x, dy, geometry, exchanges) if geometry.out_shape == shape_of(dy.type) else None


def _exchange_channels(gradient: WeightGradientOp, root: PrimitiveOp, groups: int) -> list[PrimitiveOp]:
    """(C, *kernel, O / groups) -> (O, *kernel, C / groups)."""
    inputs, *kernel, group_outputs = shape_of(gradient.result.type)
    dtype, last = dtype_of(gradient.result.type), len(kernel) + 1
    if groups == 1:
        axes = (last, *range(1, last), 0)
        return [PrimitiveOp("Transpose", [gradient.result], [root.results[0].type], [axes])]
    shape = (groups, inputs // groups, *kernel, group_outputs)
    split = PrimitiveOp("Reshape", [gradient.result], [tensor_type(shape, dtype)], [shape])
    axes = (0, last + 1, *range(2, last + 1), 1)
    transposed = tensor_type(tuple(shape[axis] for axis in axes), dtype)
    transpose = PrimitiveOp("Transpose", [split.results[0]], [transposed], [axes])
    result = root.results[0].type
    return [split, transpose, PrimitiveOp("Reshape", [transpose.results[0]], [result], [shape_of(result)])]


def _replace(layer: str, found: WeightGradient) -> None:
    geometry, root = found.geometry, found.root
    type_ = tensor_type(geometry.weight_shape, dtype_of(root.results[0].type))
    new = WeightGradientOp(found.input, found.output_gradient, geometry.window, type_, StringAttr(layer))
    new.location = root.location
    behind = _exchange_channels(new, root, geometry.window.groups) if found.exchanges else []
    Rewriter.insert_op([new, *behind], InsertPoint.before(root))
    name = root.results[0].name_hint
    root.results[0].replace_all_uses_with(behind[-1].results[0] if behind else new.result)
    new.result.name_hint = name


@dataclass(frozen=True)
class RaiseWeightGradientPass(ModulePass):
    """See the module's docstring."""

    name = "raise-weight-gradient"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for layer, conv in named_convolutions(op):
            conv.attributes["layer"] = StringAttr(layer)  # those that stay keep their names
        for layer, root in [(layer, found.root) for layer, found in named_weight_gradients(op)]:
            found = _gradient(root)  # anew: it may read another one, which has been replaced
            if found and "refused" not in root.attributes:
                _replace(layer, found)
            elif found and is_primitive(root, "Reshape"):
                root.attributes["layer"] = StringAttr(layer)
                root.attributes["convolution"] = StringAttr(found.geometry.in_words(batch=True))
        for function in forward_of(op):
            erase_dead_ops(function.body.block)
