"""What a kernel must compute, in float64 and straight from the definition: slow, short, and independent of convjit's
own arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from convjit.geometry import Geometry
from convjit.kernel import Epilogue, Instruction, Kernel

Array = npt.NDArray[np.float64]


def convolution(geometry: Geometry, x: npt.ArrayLike, w: npt.ArrayLike) -> Array:
    """The sums: x of shape (N, *spatial, C) with w of shape (O, *kernel, C / groups) -> (N, *out, O).

    y[o] = sum over k of x'[o * stride + k * kernel_dilation] w[k], where x' is x with zeros between its elements
    (input dilation) and around them (padding; negative padding crops), and w is mirrored if `flip` is set.
    """
    window = geometry.window
    x, w = np.asarray(x, np.float64), np.asarray(w, np.float64)
    assert x.shape == geometry.in_shape and w.shape == geometry.weight_shape
    axes = range(1, 1 + window.rank)
    if window.flip:
        w = np.flip(w, tuple(axes))

    extents = ((n - 1) * d + 1 for n, d in zip(geometry.in_size, window.input_dilation, strict=True))
    spread = np.zeros((geometry.batch, *extents, geometry.in_channels))
    spread[(slice(None), *(slice(None, None, d) for d in window.input_dilation))] = x
    for axis, lo, hi in zip(axes, window.pad_lo, window.pad_hi, strict=True):
        width = [(0, 0)] * spread.ndim
        width[axis] = (max(lo, 0), max(hi, 0))
        keep = [slice(None)] * spread.ndim
        keep[axis] = slice(max(-lo, 0), spread.shape[axis] - max(-hi, 0))
        spread = np.pad(spread[tuple(keep)], width)

    out = geometry.out_size
    y = np.zeros(geometry.out_shape)
    in_group, out_group = w.shape[-1], w.shape[0] // window.groups
    for tap in np.ndindex(*geometry.kernel):
        reach = tuple(
            slice(k * d, k * d + (n - 1) * s + 1, s)
            for k, d, n, s in zip(tap, window.kernel_dilation, out, window.strides, strict=True)
        )
        met = _outputs_that_meet_elements(geometry, tap)
        if met is None:
            continue
        seen, sums = spread[(slice(None), *reach)][(slice(None), *met)], y[(slice(None), *met)]
        for group in range(window.groups):
            channels = slice(group * out_group, (group + 1) * out_group)
            weights = w[(channels, *tap)]
            sums[..., channels] += seen[..., group * in_group : (group + 1) * in_group] @ weights.T
    return y


def _outputs_that_meet_elements(geometry: Geometry, tap: tuple[int, ...]) -> tuple[slice, ...] | None:
    """Along each axis the outputs for which this tap does not meet a zero between elements; None if there are none."""
    window = geometry.window
    met: list[slice] = []
    for axis, k in enumerate(tap):
        between = window.input_dilation[axis]
        start = k * window.kernel_dilation[axis] - window.pad_lo[axis]
        hits = [o for o in range(between) if (start + o * window.strides[axis]) % between == 0]
        if not hits:
            return None
        met.append(slice(hits[0], None, hits[1] - hits[0] if len(hits) > 1 else between))
    return tuple(met)


def round_to(value: Array, dtype: str) -> Array:
    """`value` rounded to the nearest number of a storage type, ties to even; beyond its range, to infinity."""
    with np.errstate(over="ignore"):
        if dtype == "f32":
            return value.astype(np.float32).astype(np.float64)
        if dtype == "f16":
            return value.astype(np.float16).astype(np.float64)
    bits = value.astype(np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return np.where(np.isnan(value), value, rounded.view(np.float32).astype(np.float64))


def _lanes(function: Callable[[float], float]) -> Callable[[Array], Array]:
    return lambda x: np.vectorize(function, otypes=[np.float64])(x)


_ARITHMETIC: dict[str, Callable[..., Array]] = {
    "arith.addf": np.add,
    "arith.subf": np.subtract,
    "arith.mulf": np.multiply,
    "arith.divf": np.divide,
    "arith.negf": np.negative,
    "arith.select": np.where,
    "arith.andi": np.logical_and,
    "arith.ori": np.logical_or,
    "arith.xori": np.logical_xor,
    "arith.uitofp": lambda a: a.astype(np.float64),
    "arith.extf": lambda a: a,
    "math.absf": np.abs,
    "math.ceil": np.ceil,
    "math.floor": np.floor,
    "math.roundeven": np.rint,
    "math.exp": np.exp,
    "math.expm1": np.expm1,
    "math.log": np.log,
    "math.log1p": np.log1p,
    "math.log2": np.log2,
    "math.log10": np.log10,
    "math.sqrt": np.sqrt,
    "math.rsqrt": lambda a: 1 / np.sqrt(a),
    "math.sin": np.sin,
    "math.cos": np.cos,
    "math.tan": np.tan,
    "math.tanh": np.tanh,
    "math.erf": _lanes(math.erf),
    "math.powf": np.power,
}


def _compare(predicate: str, a: Array, b: Array) -> Array:
    unordered = np.isnan(a) | np.isnan(b)
    if predicate in ("ord", "uno"):
        return unordered if predicate == "uno" else ~unordered
    relation = {"eq": a == b, "ne": a != b, "gt": a > b, "ge": a >= b, "lt": a < b, "le": a <= b}[predicate[1:]]
    return (relation | unordered) if predicate[0] == "u" else (relation & ~unordered)


def _evaluate(instruction: Instruction, operands: Sequence[Array]) -> Array:
    attribute = instruction.attribute
    match instruction.op:
        case "arith.constant" if instruction.type == "i1":
            return np.asarray(bool(attribute))
        case "arith.constant":
            assert isinstance(attribute, (int, float))
            return round_to(np.asarray(float(attribute)), instruction.type)
        case "arith.cmpf":
            return _compare(str(attribute), *operands)
        case "arith.truncf":
            return round_to(operands[0], instruction.type)
        case op:
            return _ARITHMETIC[op](*operands)


def epilogue(epilogue: Epilogue, inputs: Sequence[npt.ArrayLike]) -> list[Array]:
    """The results of an epilogue: its inputs are the sum and the extras, which broadcast against each other."""
    values = [np.asarray(i, np.float64) for i in inputs]
    with np.errstate(all="ignore"):
        for instruction in epilogue.instructions:
            values.append(_evaluate(instruction, [values[o] for o in instruction.operands]))
    return [values[r] for r in epilogue.results]


def results(kernel: Kernel, x: npt.ArrayLike, w: npt.ArrayLike, extras: Sequence[npt.ArrayLike]) -> list[Array]:
    """What `kernel` writes, before rounding to the storage type: one array of the output's shape a result."""
    with np.errstate(all="ignore"):
        values = epilogue(kernel.epilogue, [convolution(kernel.geometry, x, w), *extras])
    return [np.broadcast_to(v, kernel.geometry.out_shape) for v in values]


def magnitude(kernel: Kernel, x: npt.ArrayLike, w: npt.ArrayLike) -> Array:
    """The sums of absolute products: |sum - reference| <= c * eps * magnitude, whatever the order of summation."""
    return convolution(kernel.geometry, np.abs(np.asarray(x, np.float64)), np.abs(np.asarray(w, np.float64)))
