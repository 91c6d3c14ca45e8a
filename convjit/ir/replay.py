"""One table: MLX primitive -> the MLX call that does the same. Knows MLX and nothing of the rest.

A traced program's primitives are replayed by this table wherever no kernel of ours stands in their place. MLX
changes its primitives between minor versions, so a name that is not in the table, or one that arrives with another
number of arguments, is refused: the caller falls back to the plain function, never to a guess.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from convjit.ir.random_bits import random_bits

Arrays = Sequence[mx.array]
Outputs = Sequence[tuple[tuple[int, ...], mx.Dtype]]
"""The shape and dtype of each output, as MLX traced them."""


class UnknownPrimitive(ValueError):
    """A primitive that the table cannot replay; the message names it."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How to replay one primitive.

    Attributes:
        arguments: how many arguments MLX reports for it.
        call: (inputs, arguments, outputs) -> the array, or the sequence of arrays, that the primitive gives.
    """

    arguments: int
    call: Callable[[Arrays, tuple[Any, ...], Outputs], Any]


def call(name: str, arguments: tuple[Any, ...], inputs: Arrays, outputs: Outputs) -> list[mx.array]:
    """Replay one primitive.

    Raises:
        UnknownPrimitive: if the table has no rule for it.
    """
    check(name, arguments)
    result = RULES[name].call(inputs, arguments, outputs)
    return list(result) if isinstance(result, (list, tuple)) else [result]


def check(name: str, arguments: tuple[Any, ...]) -> None:
    """Raise UnknownPrimitive unless the table has a rule for this primitive with so many arguments."""
    rule = RULES.get(name)
    if rule is None:
        raise UnknownPrimitive(f"MLX's primitive {name} has no replay rule")
    if rule.arguments != len(arguments):
        raise UnknownPrimitive(
            f"MLX's primitive {name} came with {len(arguments)} arguments, its replay rule knows {rule.arguments}"
        )


def _unary(f: Callable[[mx.array], mx.array]) -> Rule:
    return Rule(0, lambda i, a, o: f(i[0]))


def _binary(f: Callable[[mx.array, mx.array], Any]) -> Rule:
    return Rule(0, lambda i, a, o: f(i[0], i[1]))


def _slices(start: Sequence[int], stop: Sequence[int], step: Sequence[int], x: mx.array) -> tuple[slice, ...]:
    # A stop of -1 with a negative step means "before the first element", which Python's slices write as None.
    return tuple(
        slice(b, None if s < 0 and (e < 0 or e < -n) else e, s)
        for b, e, s, n in zip(start, stop, step, x.shape, strict=True)
    )


def _slice(i: Arrays, a: tuple[Any, ...], o: Outputs) -> mx.array:
    start, stop, step = a
    return i[0][_slices(start, stop, step, i[0])]


_REDUCTIONS_AT = ("maximum", "minimum", "add", "multiply")
ASSIGN = 4
"""The mode of a `SliceUpdate` or `Scatter` that is no reduction."""


def _slice_update(i: Arrays, a: tuple[Any, ...], o: Outputs) -> mx.array:
    mode, start, stop, step = a
    index = _slices(start, stop, step, i[0])
    if mode == ASSIGN:
        y = copy.copy(i[0])
        y[index] = i[1]
        return y
    return getattr(i[0].at[index], _REDUCTIONS_AT[mode])(i[1])


def _front_order(ndim: int, axes: Sequence[int]) -> list[int]:
    return [*axes, *(d for d in range(ndim) if d not in axes)]


def _require_whole_slices(x: mx.array, axes: Sequence[int], sizes: Sequence[int], name: str) -> None:
    for axis, (size, extent) in enumerate(zip(sizes, x.shape, strict=True)):
        if size != (1 if axis in axes else extent):
            raise UnknownPrimitive(f"MLX's primitive {name} with partial slices {tuple(sizes)} has no replay rule")


def _gather(i: Arrays, a: tuple[Any, ...], o: Outputs) -> mx.array:
    x, *indices = i
    axes, sizes = a
    _require_whole_slices(x, axes, sizes, "Gather")
    y = x.transpose(_front_order(x.ndim, axes))[tuple(indices)]
    return y.reshape(o[0][0])


def _scatter(i: Arrays, a: tuple[Any, ...], o: Outputs) -> mx.array:
    x, *indices, update = i
    mode, axes = a
    lead = indices[0].ndim
    _require_whole_slices(x, axes, update.shape[lead:], "Scatter")
    order = _front_order(x.ndim, axes)
    y = x.transpose(order)
    update = update.squeeze([lead + axis for axis in axes])
    if mode == ASSIGN:
        y = copy.copy(y)
        y[tuple(indices)] = update
    else:
        y = getattr(y.at[tuple(indices)], _REDUCTIONS_AT[mode])(update)
    return y.transpose([order.index(d) for d in range(x.ndim)])


def _scatter_axis(i: Arrays, a: tuple[Any, ...], o: Outputs) -> mx.array:
    x, indices, update = i
    mode, axis = a
    if mode == 0:  # additions, which no function of MLX does but the gradient of this one
        return x + mx.vjp(lambda x: mx.take_along_axis(x, indices, axis=axis), [x], [update])[1][0]
    if mode != 1:
        raise UnknownPrimitive(f"MLX's primitive ScatterAxis with reduction {mode} has no replay rule")
    return mx.put_along_axis(x, indices, update, axis=axis)


def _pad(i: Arrays, a: tuple[Any, ...], o: Outputs) -> mx.array:
    widths = [(0, 0)] * i[0].ndim
    for axis, low, high in zip(*a, strict=True):
        widths[axis] = (low, high)
    return mx.pad(i[0], widths, constant_values=i[1])


def _convolution(i: Arrays, a: tuple[Any, ...], o: Outputs) -> mx.array:
    if i[0].size == 0:
        return mx.zeros(*o[0])  # as MLX gives, but where it divides by an extent of 0 and dies
    stride, pad_lo, pad_hi, kernel_dilation, input_dilation, groups, flip = a
    return mx.conv_general(
        i[0],
        i[1],
        stride=stride,
        padding=(pad_lo, pad_hi),
        kernel_dilation=kernel_dilation,
        input_dilation=input_dilation,
        groups=groups,
        flip=flip,
    )


def _equal(i: Arrays, a: tuple[Any, ...], o: Outputs) -> mx.array:
    equal = mx.equal(i[0], i[1])
    if not a[0]:
        return equal
    return mx.logical_or(equal, mx.logical_and(mx.isnan(i[0]), mx.isnan(i[1])))


def _random_bits(i: Arrays, a: tuple[Any, ...], o: Outputs) -> mx.array:
    key, (shape, width) = i[0], a
    if key.ndim != 1 or width != 4:
        raise UnknownPrimitive(f"MLX's primitive RandomBits of {key.ndim - 1} axes of keys has no replay rule")
    return random_bits(key, shape)


_QUANTIZATIONS = ("affine", "mxfp4", "mxfp8")


def _quantization(group_size: int, bits: int, mode: int, name: str) -> dict[str, Any]:
    if mode >= len(_QUANTIZATIONS):
        raise UnknownPrimitive(f"MLX's primitive {name} of mode {mode} has no replay rule")
    return {"group_size": group_size, "bits": bits, "mode": _QUANTIZATIONS[mode]}


def _quantized_matmul(i: Arrays, a: tuple[Any, ...], o: Outputs) -> mx.array:
    x, w, scales, *biases = i
    *kind, transpose = a
    options = _quantization(*kind, name="QuantizedMatmul")
    return mx.quantized_matmul(x, w, scales, biases[0] if biases else None, transpose=transpose, **options)


def _quantize(i: Arrays, a: tuple[Any, ...], o: Outputs) -> Any:
    *kind, dequantize = a
    options = _quantization(*kind, name="Quantize")
    if not dequantize:
        return mx.quantize(i[0], **options)
    w, scales, *biases = i
    return mx.dequantize(w, scales, biases[0] if biases else None, dtype=o[0][1], **options)


def _fft(i: Arrays, a: tuple[Any, ...], o: Outputs) -> mx.array:
    axes, inverse, real, _ = a
    transform = getattr(mx.fft, f"{'i' * inverse}{'r' * real}fftn")
    shape = o[0][0] if inverse else i[0].shape
    return transform(i[0], s=[shape[axis] for axis in axes], axes=list(axes))


def _unless_scalar(array: mx.array) -> mx.array | None:
    """A weight or bias; MLX's primitives have a scalar where there is none."""
    return array if array.ndim else None


def _rms_norm(i: Arrays, a: tuple[Any, ...], o: Outputs) -> mx.array:
    return mx.fast.rms_norm(i[0], _unless_scalar(i[1]), a[0])


def _layer_norm(i: Arrays, a: tuple[Any, ...], o: Outputs) -> mx.array:
    return mx.fast.layer_norm(i[0], _unless_scalar(i[1]), _unless_scalar(i[2]), a[0])


def _gradients(call: Callable[[Arrays, tuple[Any, ...], Outputs], mx.array]) -> Rule:
    """The rule of a primitive whose last input is the cotangent of what `call` gives for the others."""
    return Rule(1, lambda i, a, o: mx.vjp(lambda *x: call(x, a, o), list(i[:-1]), [i[-1]])[1])


def _rope(i: Arrays, a: tuple[Any, ...], o: Outputs) -> mx.array:
    x, offset, *freqs = i
    dims, traditional, base, scale, forward = a

    def rotated(x: mx.array) -> mx.array:
        options: dict[str, Any] = {"traditional": traditional, "scale": scale, "offset": offset}
        if freqs:
            return mx.fast.rope(x, dims, base=None, freqs=freqs[0], **options)
        return mx.fast.rope(x, dims, base=base, **options)

    return rotated(x) if forward else mx.vjp(rotated, [x], [x])[1][0]


def _attention(i: Arrays, a: tuple[Any, ...], o: Outputs) -> mx.array:
    queries, keys, values, *others = i
    scale, causal, has_sinks, gives_logsumexp, force_fused = a
    if gives_logsumexp or force_fused:
        raise UnknownPrimitive("MLX's primitive ScaledDotProductAttention for a gradient has no replay rule")
    sinks = others.pop() if has_sinks else None
    mask = "causal" if causal else others[0] if others else None
    return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale, mask=mask, sinks=sinks)


_REDUCE = (mx.all, mx.any, mx.sum, mx.prod, mx.min, mx.max)
_SCAN = (mx.cummax, mx.cummin, mx.cumsum, mx.cumprod)
_BITWISE = (mx.bitwise_and, mx.bitwise_or, mx.bitwise_xor, mx.left_shift, mx.right_shift)
_LOG = (mx.log2, mx.log10, mx.log)
_ARG_REDUCE = (mx.argmin, mx.argmax)

RULES: dict[str, Rule] = {
    # elementwise
    "Abs": Rule(0, lambda i, a, o: mx.abs(i[0]).astype(o[0][1])),  # of complex numbers it is traced as complex, too
    "ArcCos": _unary(mx.arccos),
    "ArcCosh": _unary(mx.arccosh),
    "ArcSin": _unary(mx.arcsin),
    "ArcSinh": _unary(mx.arcsinh),
    "ArcTan": _unary(mx.arctan),
    "ArcTanh": _unary(mx.arctanh),
    "Ceil": _unary(mx.ceil),
    "Conjugate": _unary(mx.conj),
    "Cos": _unary(mx.cos),
    "Cosh": _unary(mx.cosh),
    "Erf": _unary(mx.erf),
    "ErfInv": _unary(mx.erfinv),
    "Exp": _unary(mx.exp),
    "Expm1": _unary(mx.expm1),
    "Floor": _unary(mx.floor),
    "Imag": _unary(mx.imag),
    "Log": Rule(1, lambda i, a, o: _LOG[a[0]](i[0])),
    "Log1p": _unary(mx.log1p),
    "LogicalNot": _unary(mx.logical_not),
    "Negative": _unary(mx.negative),
    "Real": _unary(mx.real),
    "Round": _unary(mx.round),
    "Sigmoid": _unary(mx.sigmoid),
    "Sign": _unary(mx.sign),
    "Sin": _unary(mx.sin),
    "Sinh": _unary(mx.sinh),
    "Sqrt": Rule(1, lambda i, a, o: mx.rsqrt(i[0]) if a[0] else mx.sqrt(i[0])),
    "Square": _unary(mx.square),
    "Tan": _unary(mx.tan),
    "Tanh": _unary(mx.tanh),
    "AsType": Rule(1, lambda i, a, o: i[0].astype(a[0])),
    "View": Rule(1, lambda i, a, o: i[0].view(o[0][1])),
    "Add": _binary(mx.add),
    "ArcTan2": _binary(mx.arctan2),
    "BitwiseBinary": Rule(1, lambda i, a, o: _BITWISE[a[0]](i[0], i[1])),
    "Divide": _binary(mx.divide),
    "DivMod": _binary(mx.divmod),
    "Equal": Rule(1, _equal),
    "FloorDivide": _binary(mx.floor_divide),
    "Greater": _binary(mx.greater),
    "GreaterEqual": _binary(mx.greater_equal),
    "Less": _binary(mx.less),
    "LessEqual": _binary(mx.less_equal),
    "LogAddExp": _binary(mx.logaddexp),
    "LogicalAnd": _binary(mx.logical_and),
    "LogicalOr": _binary(mx.logical_or),
    "Maximum": _binary(mx.maximum),
    "Minimum": _binary(mx.minimum),
    "Multiply": _binary(mx.multiply),
    "NotEqual": _binary(mx.not_equal),
    "Power": _binary(mx.power),
    "Remainder": _binary(mx.remainder),
    "Subtract": _binary(mx.subtract),
    "Select": Rule(0, lambda i, a, o: mx.where(i[0], i[1], i[2])),
    # linear algebra and convolution
    "AddMM": Rule(2, lambda i, a, o: mx.addmm(i[2], i[0], i[1], alpha=a[0], beta=a[1])),
    "Convolution": Rule(7, _convolution),
    "Matmul": _binary(mx.matmul),
    "FFT": Rule(4, _fft),
    "Hadamard": Rule(1, lambda i, a, o: mx.hadamard_transform(i[0], a[0])),
    "Quantize": Rule(4, _quantize),
    "QuantizedMatmul": Rule(4, _quantized_matmul),
    # what MLX keeps whole on Metal; on a CPU its tracer reports the steps
    "LayerNorm": Rule(1, _layer_norm),
    "LayerNormVJP": _gradients(_layer_norm),
    "RMSNorm": Rule(1, _rms_norm),
    "RMSNormVJP": _gradients(_rms_norm),
    "RoPE": Rule(5, _rope),
    "ScaledDotProductAttention": Rule(5, _attention),
    # reductions and sorting
    "ArgPartition": Rule(2, lambda i, a, o: mx.argpartition(i[0], a[0], axis=a[1])),
    "ArgReduce": Rule(2, lambda i, a, o: _ARG_REDUCE[a[0]](i[0], axis=a[1], keepdims=True)),
    "ArgSort": Rule(1, lambda i, a, o: mx.argsort(i[0], axis=a[0])),
    "LogSumExp": Rule(0, lambda i, a, o: mx.logsumexp(i[0], axis=-1, keepdims=True)),
    "Partition": Rule(2, lambda i, a, o: mx.partition(i[0], a[0], axis=a[1])),
    "Reduce": Rule(2, lambda i, a, o: _REDUCE[a[0]](i[0], axis=list(a[1]), keepdims=True)),
    "Scan": Rule(4, lambda i, a, o: _SCAN[a[0]](i[0], axis=a[1], reverse=a[2], inclusive=a[3])),
    "Softmax": Rule(1, lambda i, a, o: mx.softmax(i[0], axis=-1, precise=a[0])),
    "Sort": Rule(1, lambda i, a, o: mx.sort(i[0], axis=a[0])),
    # shapes
    "AsStrided": Rule(3, lambda i, a, o: mx.as_strided(i[0], a[0], a[1], a[2])),
    "Broadcast": Rule(1, lambda i, a, o: mx.broadcast_to(i[0], o[0][0])),
    "Concatenate": Rule(1, lambda i, a, o: mx.concatenate(list(i), axis=a[0])),
    "ExpandDims": Rule(1, lambda i, a, o: mx.expand_dims(i[0], list(a[0]))),
    "Flatten": Rule(2, lambda i, a, o: mx.flatten(i[0], a[0], a[1])),
    "Pad": Rule(3, _pad),
    "Reshape": Rule(1, lambda i, a, o: mx.reshape(i[0], o[0][0])),
    "Slice": Rule(3, _slice),
    "SliceUpdate": Rule(4, _slice_update),
    "Split": Rule(2, lambda i, a, o: mx.split(i[0], list(a[0]), axis=a[1])),
    "Squeeze": Rule(1, lambda i, a, o: mx.squeeze(i[0], list(a[0]))),
    "Transpose": Rule(1, lambda i, a, o: mx.transpose(i[0], list(a[0]))),
    "Unflatten": Rule(2, lambda i, a, o: mx.unflatten(i[0], a[0], a[1])),
    # indexing and making
    "Arange": Rule(3, lambda i, a, o: mx.arange(a[0], a[1], a[2], dtype=o[0][1])),
    "DynamicSlice": Rule(2, lambda i, a, o: mx.slice(i[0], i[1], tuple(a[0]), a[1])),
    "DynamicSliceUpdate": Rule(1, lambda i, a, o: mx.slice_update(i[0], i[1], i[2], tuple(a[0]))),
    "Full": Rule(0, lambda i, a, o: mx.full(o[0][0], i[0], dtype=o[0][1])),
    "Gather": Rule(2, _gather),
    "RandomBits": Rule(2, _random_bits),
    "GatherAxis": Rule(1, lambda i, a, o: mx.take_along_axis(i[0], i[1], axis=a[0])),
    "Scatter": Rule(2, _scatter),
    "ScatterAxis": Rule(2, _scatter_axis),
}
