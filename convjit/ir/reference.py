"""What every op means, at every stage: the interpreter that passes are checked against.

Values are MLX arrays. An epilogue's scalar ops run once on whole arrays; `conv.pack` is the identity, because a
packed weight means the same weight; a stretch is its kernels in order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import astuple, replace
from math import prod
from typing import Any

import mlx.core as mx
from xdsl.dialects import arith, math
from xdsl.dialects.builtin import FloatAttr, IntegerAttr, ModuleOp
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Operation, SSAValue

from convjit.geometry import Geometry, Window
from convjit.ir import replay
from convjit.ir.arguments import arguments_of
from convjit.ir.bodies import YieldOp
from convjit.ir.conv import FusedOp, GeneralOp, PackOp, StretchOp, WeightGradientOp
from convjit.ir.elementwise import ElementwiseOp
from convjit.ir.mlx import ConstantOp, PrimitiveOp
from convjit.ir.norm import NormOp
from convjit.ir.pool import PoolGradientOp, PoolOp
from convjit.ir.rearrange import RearrangeOp, ViewOp
from convjit.ir.softmax import SoftmaxOp
from convjit.ir.types import DTYPE_OF_TYPE, dtype_of, shape_of, without_leading_ones

Array = mx.array

COMPARE: dict[str, Callable[[Array, Array], Array]] = {
    "false": lambda x, y: mx.zeros(x.shape, mx.bool_),
    "oeq": lambda x, y: x == y,
    "ogt": lambda x, y: x > y,
    "oge": lambda x, y: x >= y,
    "olt": lambda x, y: x < y,
    "ole": lambda x, y: x <= y,
    "one": lambda x, y: mx.logical_or(x < y, x > y),
    "ord": lambda x, y: mx.logical_not(_unordered(x, y)),
    "ueq": lambda x, y: mx.logical_or(_unordered(x, y), x == y),
    "ugt": lambda x, y: mx.logical_not(x <= y),
    "uge": lambda x, y: mx.logical_not(x < y),
    "ult": lambda x, y: mx.logical_not(x >= y),
    "ule": lambda x, y: mx.logical_not(x > y),
    "une": lambda x, y: x != y,
    "uno": lambda x, y: _unordered(x, y),
    "true": lambda x, y: mx.ones(x.shape, mx.bool_),
}
"""The predicates of "arith.cmpf"."""


def _unordered(x: Array, y: Array) -> Array:
    return mx.logical_or(mx.isnan(x), mx.isnan(y))


SCALAR_OPS: dict[str, Callable[..., Array]] = {
    arith.AddfOp.name: mx.add,
    arith.SubfOp.name: mx.subtract,
    arith.MulfOp.name: mx.multiply,
    arith.DivfOp.name: mx.divide,
    arith.NegfOp.name: mx.negative,
    arith.AndIOp.name: mx.logical_and,
    arith.OrIOp.name: mx.logical_or,
    arith.XOrIOp.name: mx.not_equal,
    arith.SelectOp.name: mx.where,
    math.AbsFOp.name: mx.abs,
    math.CeilOp.name: mx.ceil,
    math.CosOp.name: mx.cos,
    math.ErfOp.name: mx.erf,
    math.ExpOp.name: mx.exp,
    math.ExpM1Op.name: mx.expm1,
    math.FloorOp.name: mx.floor,
    math.LogOp.name: mx.log,
    math.Log10Op.name: mx.log10,
    math.Log1pOp.name: mx.log1p,
    math.Log2Op.name: mx.log2,
    math.PowFOp.name: mx.power,
    math.RoundEvenOp.name: mx.round,
    math.RsqrtOp.name: mx.rsqrt,
    math.SinOp.name: mx.sin,
    math.SqrtOp.name: mx.sqrt,
    math.TanOp.name: mx.tan,
    math.TanhOp.name: mx.tanh,
}


def run(module: ModuleOp, arguments: Sequence[Array]) -> list[Array]:
    """Evaluate a module at any stage.

    Args:
        module: `@forward`, and `@prepare` where it was hoisted.
        arguments: the traced arguments, in order: inputs, slots, constants.

    Returns:
        The results of `@forward`.
    """
    functions = {op.sym_name.data: op for op in module.body.block.ops if isinstance(op, FuncOp)}
    prepared: list[Array] = []
    if "prepare" in functions:
        prepare = functions["prepare"]
        prepared = _block(prepare.body.block, [arguments[a.index] for a in arguments_of(prepare)])
    forward = functions["forward"]
    values = [prepared[a.index] if a.kind == "prepared" else arguments[a.index] for a in arguments_of(forward)]
    return _block(forward.body.block, values)


def _block(block: Block, arguments: Sequence[Array]) -> list[Array]:
    values: dict[SSAValue, Array] = dict(zip(block.args, arguments, strict=True))
    for op in block.ops:
        operands = [values[v] for v in op.operands]
        if isinstance(op, (ReturnOp, YieldOp)):
            return operands
        values.update(zip(op.results, _evaluate(op, operands), strict=True))
    raise ValueError("a block without a terminator")


def _evaluate(op: Operation, operands: list[Array]) -> list[Array]:
    match op:
        case PrimitiveOp():
            outputs = [(shape_of(v.type), dtype_of(v.type)) for v in op.outputs]
            return replay.call(op.primitive.data, op.python_arguments, operands, outputs)
        case ConstantOp():
            return [mx.array(op.python_value, dtype_of(op.output.type))]
        case GeneralOp():
            return [_convolve(operands[0], operands[1], op.window.data)]
        case WeightGradientOp():
            return [_weight_gradient(operands[0], operands[1], op)]
        case PackOp():
            return operands
        case StretchOp():
            return _block(op.body.block, operands)
        case FusedOp():
            x, w, *extras = operands
            total = _convolve(x.astype(mx.float32), w.astype(mx.float32), op.window.data)
            return [mx.broadcast_to(r, total.shape) for r in _block(op.body.block, [total, *extras])]
        case ElementwiseOp():
            return _elementwise(op, operands)
        case PoolOp():
            pooled = _pooled(operands[0].astype(mx.float32), op.geometry, op.kind.data == "max")
            return [pooled.astype(operands[0].dtype).reshape(shape_of(op.result.type))]
        case PoolGradientOp():
            return [_pool_gradient(operands[0], operands[2], op)]
        case SoftmaxOp():
            return [mx.softmax(operands[0].astype(mx.float32), axis=-1).astype(operands[0].dtype)]
        case RearrangeOp():
            return [_rearranged(operands, op)]
        case ViewOp():
            return [operands[0].reshape(shape_of(op.result.type))]
        case NormOp():
            normalised = _norm(operands[0], op)
            return [mx.broadcast_to(r, normalised.shape) for r in _block(op.body.block, [normalised, *operands[1:]])]
        case _:
            return [_scalar(op, operands)]


def _elementwise(op: ElementwiseOp, operands: list[Array]) -> list[Array]:
    narrow = [v.reshape(without_leading_ones(v.shape)) for v in operands]
    results: list[Array] = []
    for number, (result, value) in enumerate(zip(_block(op.body.block, narrow), op.outputs, strict=True)):
        full = mx.broadcast_to(result, op.extents)
        if number in op.summed:
            full = full.astype(mx.float32).reshape(-1, op.extents[-1]).sum(axis=0).astype(result.dtype)
        results.append(full.reshape(shape_of(value.type)))
    return results


def _pooled(x: Array, geometry: Geometry, is_max: bool) -> Array:
    window = geometry.window
    pads = [(0, 0), *zip(window.pad_lo, window.pad_hi, strict=True), (0, 0)]
    padded = mx.contiguous(mx.pad(x, pads, constant_values=-mx.inf if is_max else 0))
    batch, *spatial, channel = (prod(padded.shape[axis + 1 :]) for axis in range(padded.ndim))
    steps = [step * stride for step, stride in zip(spatial, window.strides, strict=True)]
    shape = (*geometry.out_shape[:-1], *geometry.kernel, geometry.out_channels)
    windows = mx.as_strided(padded, shape, (batch, *steps, *spatial, channel))
    axes = tuple(range(geometry.rank + 1, 2 * geometry.rank + 1))
    return windows.max(axes) if is_max else windows.sum(axes)


def _pool_gradient(x: Array, dy: Array, op: PoolGradientOp) -> Array:
    geometry = op.geometry
    dy = dy.astype(mx.float32).reshape(geometry.out_shape)
    _, (dx,) = mx.vjp(lambda x: [_pooled(x, geometry, True)], [x.astype(mx.float32)], [dy])
    return dx.astype(x.dtype)


def _rearranged(operands: list[Array], op: RearrangeOp) -> Array:
    result = mx.zeros(prod(shape_of(op.result.type)), dtype_of(op.result.type))
    for x, part in zip(operands, op.parts.data, strict=True):
        places = [mx.array(part.source), mx.array(part.target)]
        for axis, extent in enumerate(part.shape):
            count = mx.arange(extent).reshape([extent if a == axis else 1 for a in range(len(part.shape))])
            steps = (part.source_strides[axis], part.target_strides[axis])
            places = [at + step * count for at, step in zip(places, steps, strict=True)]
        result[places[1].flatten()] = x.flatten()[places[0].flatten()]
    return result.reshape(shape_of(op.result.type))


def _norm(x: Array, op: NormOp) -> Array:
    images, pixels, groups, channels = op.view.data
    shape, axes = (op.view.data, (1, 3)) if not op.interleaved else ((images, pixels, channels, groups), (1, 2))
    parts = x.astype(mx.float32).reshape(shape)
    if op.centered:
        parts = parts - parts.mean(axes, keepdims=True)
    variance = mx.square(parts).mean(axes, keepdims=True)
    return (parts * mx.rsqrt(variance + op.eps.value.data)).reshape(x.shape)


def _convolve(x: Array, w: Array, window: Window) -> Array:
    if window.rank == 0:
        return x @ w.swapaxes(-1, -2)
    if window.rank == 3 and window.groups > 1:  # which MLX does not have
        parts = zip(mx.split(x, window.groups, -1), mx.split(w, window.groups), strict=True)
        return mx.concatenate([_convolve(*part, replace(window, groups=1)) for part in parts], -1)
    return replay.call("Convolution", astuple(window), [x, w], [])[0]


def _weight_gradient(x: Array, dy: Array, op: WeightGradientOp) -> Array:
    x, dy, dtype = x.astype(mx.float32), dy.astype(mx.float32), dtype_of(op.result.type)
    weight = mx.zeros(shape_of(op.result.type))
    _, (gradient,) = mx.vjp(lambda w: [_convolve(x, w, op.window.data)], [weight], [dy])
    return gradient.astype(dtype)


def _scalar(op: Operation, operands: list[Any]) -> Array:
    match op:
        case arith.ConstantOp(value=FloatAttr(value=value)):
            return mx.array(value.data, mx.float32)
        case arith.ConstantOp(value=IntegerAttr(value=value)):
            return mx.array(bool(value.data))
        case arith.CmpfOp():
            return COMPARE[arith.CMPF_COMPARISON_OPERATIONS[op.predicate.value.data]](*operands)
        case arith.ExtFOp() | arith.TruncFOp() | arith.UIToFPOp():
            return operands[0].astype(DTYPE_OF_TYPE[op.results[0].type])  # pyright: ignore[reportArgumentType]
        case _:
            return SCALAR_OPS[op.name](*operands)
