"""What a kernel must give at some of its outputs: its sums in float64 and straight from the definition."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from convjit.backends import MLX_DTYPES
from convjit.geometry import Geometry
from convjit.kernel import Epilogue, Instruction, Kernel, Pool

Array = npt.NDArray[np.float64]
Stored = npt.NDArray[np.float32]
"""The numbers of an MLX array of any storage type: float32 holds them all."""

Places = npt.NDArray[np.int64]
"""Numbers of outputs, along one axis or counted through all of them."""

Outputs = tuple[Places, ...]
"""Indices of outputs: one array an axis, all of one length."""

TOLERANCE = {"f32": 1e-4, "f16": 4e-3, "bf16": 3e-2}
"""Relative to the magnitude of a result, and to that of a sum whose products are of this type: far above rounding."""

_CHUNK = 1_000_000
"""Products in memory at a time."""


class Bounds(NamedTuple):
    """What each output is, and between what it may lie, ends included; NaN where anything may be."""

    exact: Array
    low: Array
    high: Array

    def deviation(self, actual: Array) -> float:
        """The largest difference of finite numbers, relative to the largest magnitude."""
        finite = np.isfinite(self.exact) & np.isfinite(actual)
        actual, exact = actual[finite], self.exact[finite]
        largest = np.abs(exact).max(initial=0)
        return float(np.abs(actual - exact).max(initial=0) / largest) if largest else 0.0

    def wrong(self, actual: Array) -> npt.NDArray[np.bool_]:
        """Which of the `actual` outputs lie outside."""
        return ~((self.low <= actual) & (actual <= self.high)) & ~(np.isnan(self.low) | np.isnan(self.high))


def stored(array: mx.array) -> Stored:
    """The numbers of an array; evaluates it."""
    return np.array(array.astype(mx.float32), copy=False)


def pick(values: Stored, outputs: Outputs) -> Array:
    """The elements at `outputs` of an array that broadcasts to the output."""
    index = tuple(np.minimum(o, n - 1) for o, n in zip(outputs, values.shape, strict=True))
    return values[index].astype(np.float64)


def bounds_of_pool(kernel: Pool, x: Stored, outputs: Outputs) -> Bounds:
    """Between what the result of a pool must lie: a maximum is exact."""
    parts = max(1, len(outputs[0]) * kernel.terms // _CHUNK)
    chunks = zip(*(np.array_split(o, parts) for o in outputs), strict=True)
    windows = [_window(kernel, x, chunk) for chunk in chunks]
    if kernel.kind == "max":
        exact = np.concatenate([window.max(1) for window in windows])
        return Bounds(exact, exact, exact)
    exact = np.concatenate([window.sum(1) for window in windows])
    slack = TOLERANCE[kernel.dtype] * np.concatenate([np.abs(window).sum(1) for window in windows])
    return Bounds(exact, exact - slack, exact + slack)


def _window(kernel: Pool, x: Stored, outputs: Outputs) -> Array:
    """What is in the window of each output: outputs x taps."""
    inside, positions = _taps(kernel.geometry, outputs)
    n, *_, channel = outputs
    seen = x[(n[:, None], *positions, channel[:, None])].astype(np.float64)
    return np.where(inside, seen, -np.inf if kernel.kind == "max" else 0)


def bounds(kernel: Kernel, arrays: Sequence[Stored], outputs: Outputs, products: str = "f32") -> list[Bounds]:
    """Between what the results of `kernel` must lie, one for each result.

    Args:
        kernel: the convolution and its epilogue.
        arrays: its operands, see `Kernel.operand_shapes`, and extras.
        outputs: where.
        products: the type of what is summed. Only transforms round it to storage; elsewhere, products of halves are
            exact, and a bound as wide as the rounding of halves would let a whole part of a long sum be missing.
    """
    x, w, *extras = arrays
    definition = _gradients if kernel.operation == "weight_gradient" else _sums
    sums, magnitudes = definition(kernel.geometry, x, w, outputs)
    picked = [pick(e, outputs) for e in extras]
    return bounds_of_epilogue(kernel.epilogue, kernel.result_dtypes, sums, TOLERANCE[products] * magnitudes, picked)


def bounds_of_epilogue(
    epilogue: Epilogue, dtypes: Sequence[str], sums: Array, reach: Array, extras: Sequence[Array]
) -> list[Bounds]:
    """Between what the results of an epilogue must lie. It may have steps, so it is evaluated on both sides of a sum,
    too.

    Args:
        epilogue: what is done.
        dtypes: of its results.
        sums: its first input.
        reach: how far that may be off.
        extras: the others.
    """
    found: list[Bounds] = []
    with np.errstate(all="ignore"):
        for number, dtype in enumerate(dtypes):
            nearby = [sums, sums - reach, sums + reach]
            values = np.stack([evaluate(epilogue, [s, *extras], s.shape)[number] for s in nearby])
            slack = TOLERANCE[dtype] * (1 + np.abs(values).max(0))
            low, high = values.min(0), values.max(0)
            low = np.where(np.isinf(low), low, low - slack)
            high = np.where(np.isinf(high), high, high + slack)
            found.append(Bounds(values[0], low, high))
    return found


def _sums(geometry: Geometry, x: Stored, w: Stored, outputs: Outputs) -> tuple[Array, Array]:
    """The bare convolution by its definition, and the sums of absolute products."""
    terms = math.prod(geometry.weight_shape[1:])
    parts = max(1, len(outputs[0]) * terms // _CHUNK)
    chunks = zip(*(np.array_split(o, parts) for o in outputs), strict=True)
    found = [_sums_of_chunk(geometry, x, w, chunk) for chunk in chunks]
    return np.concatenate([s for s, _ in found]), np.concatenate([m for _, m in found])


def _sums_of_chunk(geometry: Geometry, x: Stored, w: Stored, outputs: Outputs) -> tuple[Array, Array]:
    window = geometry.window
    n, *_, channel = outputs
    inside, positions = _taps(geometry, outputs)
    weights = w.reshape(geometry.out_channels, inside.shape[1], -1)
    if window.flip:
        weights = weights[:, ::-1]
    per_group = weights.shape[2]
    group = channel // (geometry.out_channels // window.groups)
    channels = group[:, None, None] * per_group + np.arange(per_group)
    patches = x[(n[:, None, None], *(p[:, :, None] for p in positions), channels)] * inside[:, :, None]
    products = patches.astype(np.float64) * weights[channel]
    return products.sum((1, 2)), np.abs(products).sum((1, 2))


def _taps(geometry: Geometry, outputs: Outputs) -> tuple[npt.NDArray[np.bool_], list[Places]]:
    """Which taps of each output meet an element of the input, and the positions of all along each spatial axis."""
    window = geometry.window
    _, *spatial, _ = outputs
    taps = np.stack(np.meshgrid(*(np.arange(k) for k in geometry.kernel), indexing="ij")).reshape(window.rank, -1)
    inside = np.ones((len(outputs[0]), taps.shape[1]), bool)
    positions: list[npt.NDArray[np.int64]] = []
    for axis in range(window.rank):
        dilated = (
            spatial[axis][:, None] * window.strides[axis]
            + taps[axis] * window.kernel_dilation[axis]
            - window.pad_lo[axis]
        )
        position, gap = np.divmod(dilated, window.input_dilation[axis])
        inside &= (gap == 0) & (position >= 0) & (position < geometry.in_size[axis])
        positions.append(np.clip(position, 0, geometry.in_size[axis] - 1))
    return inside, positions


def _gradients(geometry: Geometry, x: Stored, dy: Stored, outputs: Outputs) -> tuple[Array, Array]:
    """Elements of the gradient of the weight by its definition, and the sums of absolute products."""
    window, group_outputs = geometry.window, geometry.out_channels // geometry.window.groups
    group_inputs = geometry.in_channels // window.groups
    sums: list[tuple[float, float]] = []
    for o, *tap, channel in zip(*(axis.tolist() for axis in outputs), strict=True):
        inside, positions = np.ones(geometry.out_size, bool), [np.arange(geometry.batch)]
        for axis, k in enumerate(tap):
            met = np.arange(geometry.out_size[axis]) * window.strides[axis] + k * window.kernel_dilation[axis]
            met -= window.pad_lo[axis]
            extent = geometry.in_size[axis]
            inside &= ((met >= 0) & (met < extent)).reshape([-1, *(1,) * (geometry.rank - axis - 1)])
            positions.append(np.clip(met, 0, extent - 1))
        seen = x[np.ix_(*positions, [o // group_outputs * group_inputs + channel])][..., 0]
        products = np.where(inside, seen, 0).astype(np.float64) * dy[..., o]
        sums.append((products.sum(), np.abs(products).sum()))
    totals = np.array(sums)
    return totals[:, 0], totals[:, 1]


def _lanes(function: Callable[[float], float]) -> Callable[[Array], Array]:
    return np.vectorize(function, otypes=[np.float64])


_OPS: dict[str, Callable[..., Array]] = {
    "arith.addf": np.add,
    "arith.subf": np.subtract,
    "arith.mulf": np.multiply,
    "arith.divf": np.divide,
    "arith.negf": np.negative,
    "arith.andi": np.logical_and,
    "arith.ori": np.logical_or,
    "arith.xori": np.logical_xor,
    "arith.select": np.where,
    "arith.extf": np.asarray,
    "arith.uitofp": lambda x: x.astype(np.float64),
    "math.absf": np.abs,
    "math.ceil": np.ceil,
    "math.cos": np.cos,
    "math.erf": _lanes(math.erf),
    "math.exp": np.exp,
    "math.expm1": np.expm1,
    "math.floor": np.floor,
    "math.log": np.log,
    "math.log10": np.log10,
    "math.log1p": np.log1p,
    "math.log2": np.log2,
    "math.powf": np.power,
    "math.roundeven": np.round,
    "math.rsqrt": lambda x: 1 / np.sqrt(x),
    "math.sin": np.sin,
    "math.sqrt": np.sqrt,
    "math.tan": np.tan,
    "math.tanh": np.tanh,
}
_RELATIONS: dict[str, Callable[[Array, Array], npt.NDArray[np.bool_]]] = {
    "eq": np.equal,
    "ne": np.not_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "lt": np.less,
    "le": np.less_equal,
}


def rounded(values: Array, dtype: str) -> Array:
    """To the nearest number of a storage type."""
    as_mlx = mx.array(values.astype(np.float32)).astype(MLX_DTYPES[dtype])
    return stored(as_mlx).astype(np.float64)


def evaluate(epilogue: Epilogue, inputs: Sequence[Array | Stored], shape: tuple[int, ...]) -> list[Array]:
    """The results for these numbers, which broadcast to `shape`, step by step in fp32 as a kernel does it.

    What overflows there overflows here.
    """
    values: list[npt.NDArray[Any]] = [i.astype(np.float32) for i in inputs]
    for instruction in epilogue.instructions:
        value = _value(instruction, [values[o] for o in instruction.operands])
        values.append(value if instruction.type == "i1" else value.astype(np.float32))
    return [np.broadcast_to(values[r], shape).astype(np.float64) for r in epilogue.results]


def _value(instruction: Instruction, operands: list[Array]) -> npt.NDArray[Any]:
    if instruction.op == "arith.constant":
        return np.asarray(instruction.attribute, bool if instruction.type == "i1" else np.float64)
    if instruction.op == "arith.truncf":
        return rounded(operands[0], instruction.type)
    if instruction.op != "arith.cmpf":
        return _OPS[instruction.op](*operands)
    predicate = str(instruction.attribute)
    if predicate in ("true", "false"):
        return np.full(operands[0].shape, predicate == "true")
    unordered = functools.reduce(np.logical_or, map(np.isnan, operands))
    if predicate in ("ord", "uno"):
        return unordered if predicate == "uno" else ~unordered
    related = _RELATIONS[predicate[1:]](operands[0], operands[1])
    return related | unordered if predicate[0] == "u" else related & ~unordered
