"""No kernel is trusted before it has proven itself on this machine.

When a program is built, each kernel that is new here runs once, on seeded random inputs of its exact shapes (a user's
first input may well be zeros, which prove nothing), and sampled outputs are compared with float64 dot products: the
corners, the borders, the middle and the channel tails, and `_RANDOM_SAMPLES` random ones. The output holds NaN before,
so what the kernel does not write shows. The verdict is kept on disk; a kernel that fails is not used.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from convjit.backends import MLX_DTYPES, Backend, BackendError, Call, Stretch
from convjit.cache import artefact, content_key
from convjit.geometry import Geometry
from convjit.kernel import Epilogue, Instruction, Kernel
from convjit.schedule import Schedule

Array = npt.NDArray[np.float64]

_RANDOM_SAMPLES = 256
_MAX_TERMS = 1_000_000
"""Multiply-adds of one proof in float64; kernels with very long sums get fewer samples."""

_TOLERANCE = {"f32": 1e-4, "f16": 4e-3, "bf16": 3e-2}
"""Relative to the magnitude of the result and of its sum: far above rounding, far below any wrong index."""


class ProofError(BackendError):
    """A kernel computes something else than its convolution on this machine."""


_proven: set[str] = set()


def prove(backend: Backend, work: Sequence[tuple[str, Kernel, Schedule]]) -> dict[str, str]:
    """Prove kernels, each once a machine; returns the failures: layer -> what went wrong, in a few words."""
    failures: dict[str, str] = {}
    for layer, kernel, schedule in work:
        try:
            _prove_once(backend, kernel, schedule)
        except (RuntimeError, MemoryError) as e:
            failures[layer] = str(e)
    return failures


def _prove_once(backend: Backend, kernel: Kernel, schedule: Schedule) -> None:
    key = content_key("proof", backend.name, backend.fingerprint(), repr(kernel), repr(schedule))
    if key in _proven:
        return

    def write_verdict(path: Path) -> None:
        _prove(backend, kernel, schedule)
        path.write_text("right\n")

    artefact(key, ".proof", write_verdict)
    _proven.add(key)


def _prove(backend: Backend, kernel: Kernel, schedule: Schedule) -> None:
    geometry = kernel.geometry
    generator = np.random.default_rng(0)
    terms = math.prod(geometry.weight_shape[1:])
    x = _stored(_around_zero(generator, geometry.in_shape), kernel.dtype)
    w = _stored(_around_zero(generator, geometry.weight_shape) / np.float32(terms**0.5), kernel.dtype)
    # Positive, so that no logarithm, root or quotient of theirs is NaN.
    extras = [_stored(generator.uniform(0.25, 1.75, e.shape).astype(np.float32), e.dtype) for e in kernel.extras]
    inputs = 2 + len(extras)
    outputs = tuple(range(inputs, inputs + len(kernel.result_dtypes)))
    stretch = Stretch(inputs, (Call(kernel, schedule, tuple(range(inputs)), outputs),), outputs, poisoned=True)
    results = backend.load(stretch)([x, backend.pack(geometry.window, schedule, w), *extras])
    samples = _samples(geometry, generator, max(1, _MAX_TERMS // terms))
    sums, magnitudes = _sums(geometry, _as_numpy(x), _as_numpy(w), samples)
    picked = [_pick(_as_numpy(e), samples) for e in extras]
    for number, (result, dtype) in enumerate(zip(results, kernel.result_dtypes, strict=True)):
        low, high = _bounds(kernel.epilogue, number, sums, magnitudes, picked, _TOLERANCE[dtype])
        actual = _pick(_as_numpy(result), samples)
        wrong = ~((low <= actual) & (actual <= high)) & ~(np.isnan(low) | np.isnan(high))
        if wrong.any():
            worst = int(np.argmax(wrong))
            where = tuple(int(axis[worst]) for axis in samples)
            raise ProofError(
                f"its kernel gave {actual[worst]:.6g} at {where} where {(low[worst] + high[worst]) / 2:.6g} is right "
                f"({int(wrong.sum())} of {len(wrong)} sampled outputs wrong on this machine)"
            )


def _around_zero(generator: np.random.Generator, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Uniform, of unit variance."""
    return (generator.random(shape, np.float32) - np.float32(0.5)) * np.float32(12**0.5)


def _stored(values: npt.NDArray[np.float32], dtype: str) -> mx.array:
    return mx.array(values).astype(MLX_DTYPES[dtype])


def _as_numpy(array: mx.array) -> npt.NDArray[np.float32]:
    return np.array(array.astype(mx.float32), copy=False)


def _samples(geometry: Geometry, generator: np.random.Generator, most: int) -> tuple[npt.NDArray[np.int64], ...]:
    """Indices into the output, one array an axis."""
    shape = geometry.out_shape
    marks = [sorted({0, n // 2, n - 1}) for n in shape[:-1]]
    tails = sorted({0, shape[-1] // 2, shape[-1] - 1})
    chosen = np.array(list(itertools.product(*marks, tails)), np.int64)
    random = np.stack([generator.integers(0, n, _RANDOM_SAMPLES) for n in shape], axis=1)
    return tuple(generator.permutation(np.concatenate([chosen, random]))[:most].T)


def _sums(
    geometry: Geometry,
    x: npt.NDArray[np.float32],
    w: npt.NDArray[np.float32],
    samples: tuple[npt.NDArray[np.int64], ...],
) -> tuple[Array, Array]:
    """The sampled outputs of the bare convolution by its definition, and the sums of absolute products."""
    window = geometry.window
    n, *spatial, channel = samples
    taps = np.stack(np.meshgrid(*(np.arange(k) for k in geometry.kernel), indexing="ij")).reshape(window.rank, -1)
    weights = w.reshape(geometry.out_channels, taps.shape[1], -1)
    if window.flip:
        weights = weights[:, ::-1]
    inside = np.ones((len(n), taps.shape[1]), bool)
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
    per_group = weights.shape[2]
    group = channel // (geometry.out_channels // window.groups)
    channels = group[:, None, None] * per_group + np.arange(per_group)
    patches = x[(n[:, None, None], *(p[:, :, None] for p in positions), channels)] * inside[:, :, None]
    products = patches.astype(np.float64) * weights[channel]
    return products.sum((1, 2)), np.abs(products).sum((1, 2))


def _pick(values: npt.NDArray[np.float32], samples: tuple[npt.NDArray[np.int64], ...]) -> Array:
    """The sampled elements of an array that broadcasts to the output."""
    index = tuple(np.minimum(s, n - 1) for s, n in zip(samples, values.shape, strict=True))
    return values[index].astype(np.float64)


def _bounds(
    epilogue: Epilogue, result: int, sums: Array, magnitudes: Array, extras: list[Array], tolerance: float
) -> tuple[Array, Array]:
    """Between what a result may lie: it is evaluated around the sum, because an epilogue may have steps."""
    nearby = [sums, sums - tolerance * magnitudes, sums + tolerance * magnitudes]
    with np.errstate(all="ignore"):
        values = np.stack([_evaluate(epilogue, [s, *extras])[result] for s in nearby])
        slack = tolerance * (1 + np.abs(values).max(0))
        low, high = values.min(0), values.max(0)
        return np.where(np.isinf(low), low, low - slack), np.where(np.isinf(high), high, high + slack)


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
    "arith.maximumf": np.maximum,
    "arith.minimumf": np.minimum,
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


def _rounded(values: Array, dtype: str) -> Array:
    """To the nearest number of a storage type."""
    as_mlx = mx.array(values.astype(np.float32)).astype(MLX_DTYPES[dtype])
    return _as_numpy(as_mlx).astype(np.float64)


def _evaluate(epilogue: Epilogue, inputs: Sequence[Array]) -> list[Array]:
    values: list[npt.NDArray[Any]] = list(inputs)
    for instruction in epilogue.instructions:
        values.append(_value(instruction, [values[o] for o in instruction.operands]))
    return [np.broadcast_to(values[r], inputs[0].shape) for r in epilogue.results]


def _value(instruction: Instruction, operands: list[Array]) -> npt.NDArray[Any]:
    if instruction.op == "arith.constant":
        return np.asarray(instruction.attribute, bool if instruction.type == "i1" else np.float64)
    if instruction.op == "arith.truncf":
        return _rounded(operands[0], instruction.type)
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
