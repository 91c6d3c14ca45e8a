"""Random calls of MLX's convolution functions with something elementwise behind them, and what they must give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from reference import Array, convolution, round_to

from convjit.geometry import Geometry, GeometryError, Window

DTYPES = {"f32": mx.float32, "f16": mx.float16, "bf16": mx.bfloat16}
EPSILONS = {"f32": 2.0**-24, "f16": 2.0**-11, "bf16": 2.0**-8}
"""Half the distance from 1 to the next number."""

_MAX_ELEMENTS = 1_000_000
_MAX_MULTIPLICATIONS = 50_000_000

ACTIVATIONS: dict[str, Callable[[mx.array], mx.array]] = {
    name: getattr(nn, name)
    for name in (
        *("relu", "relu2", "relu6", "leaky_relu", "elu", "celu", "selu", "silu", "mish", "hardswish", "hard_tanh"),
        *("gelu", "gelu_approx", "gelu_fast_approx", "sigmoid", "log_sigmoid", "softplus", "softsign", "softshrink"),
    )
} | {
    "tanh": mx.tanh,
    "erf": mx.erf,
    "cos": mx.cos,
    "clip": lambda y: mx.clip(y, -0.5, 0.7),
    "sqrt": lambda y: mx.sqrt(mx.abs(y)),
    "rsqrt": lambda y: mx.rsqrt(mx.square(y) + 0.5),
    "log": lambda y: mx.log(mx.square(y) + 0.1),
    "log1p": lambda y: mx.log1p(mx.abs(y)),
    "exp": lambda y: mx.exp(-mx.abs(y)),
    "power": lambda y: mx.abs(y) ** 1.5,
    "replace nan": lambda y: mx.where(mx.isnan(y), 3.0, y),
    "minus its mean": lambda y: y - mx.mean(y, axis=-1, keepdims=True),  # ends the fusion
}

COMBINATIONS: dict[str, Callable[[mx.array, mx.array], mx.array]] = {
    "add": lambda y, e: y + e,
    "subtract": lambda y, e: y - e,
    "subtract from": lambda y, e: e - y,
    "multiply": lambda y, e: y * e,
    "divide": lambda y, e: y / (mx.abs(e) + 0.5),
    "maximum": mx.maximum,
    "minimum": lambda y, e: mx.minimum(e, y),
}


@dataclass(frozen=True)
class Case:
    """A convolution by `mx.<function>(x, w, **options)`, then `steps`: names of activations, or of combinations with
    the next extra. `kept` are the steps whose values are returned; step 0 is the convolution."""

    geometry: Geometry
    function: str
    options: dict[str, Any]
    dtype: str
    steps: tuple[str, ...]
    kept: tuple[int, ...]
    x: Array
    w: Array
    extras: tuple[Array, ...]

    def __str__(self) -> str:
        shapes = [e.shape for e in self.extras]
        return f"{self.function} {self.options} of {self.dtype}, {self.geometry}, {self.steps} {shapes} -> {self.kept}"

    def arrays(self) -> list[mx.array]:
        """The arguments of `call`."""
        return [mx.array(a.astype(np.float32)).astype(DTYPES[self.dtype]) for a in (self.x, self.w, *self.extras)]

    def call(self, x: mx.array, w: mx.array, *extras: mx.array) -> list[mx.array]:
        return self._behind(getattr(mx, self.function)(x, w, **self.options), extras)

    def _behind(self, y: mx.array, extras: Sequence[mx.array]) -> list[mx.array]:
        values, others = [y], iter(extras)
        for step in self.steps:
            y = ACTIVATIONS[step](y) if step in ACTIVATIONS else COMBINATIONS[step](y, next(others))
            values.append(y)
        return [values[number] for number in self.kept]

    def expected(self) -> list[tuple[Array, Array]]:
        """The results in float64 and how far from each a right answer may be; infinite where it may be anything."""
        sums = convolution(self.geometry, self.x, self.w)
        finite_x = np.where(np.isfinite(self.x), self.x, 1.0)
        terms = self.w[0].size
        eps = EPSILONS[self.dtype]
        error = (4 + terms**0.5) * 2.0**-23 * convolution(self.geometry, np.abs(finite_x), np.abs(self.w))
        error += 2 * eps * np.abs(np.where(np.isfinite(sums), sums, 0.0))
        return [
            (value, _tolerance(value, (low, high), eps))
            for value, low, high in zip(*map(self._float64, (sums, sums - error, sums + error)), strict=True)
        ]

    def _float64(self, sums: Array) -> list[Array]:
        extras = [mx.array(e, dtype=mx.float64) for e in self.extras]
        return [np.array(v) for v in self._behind(mx.array(sums, dtype=mx.float64), extras)]


def _tolerance(value: Array, neighbours: tuple[Array, Array], eps: float) -> Array:
    with np.errstate(all="ignore"):
        spread = np.max([np.abs(n - value) for n in neighbours], axis=0)
    finite = np.isfinite(value)
    # one output that is not finite spreads to its neighbours behind a mean, and need not be the same NaN or infinity
    if eps > EPSILONS["f32"] and not finite.all():
        return np.where(finite, spread * 3 + 0.1 * (1 + np.abs(value)), np.inf)
    largest = float(np.abs(value[finite]).max(initial=0.0))
    return np.where(finite, 3 * spread + (6 * eps + 1e-6) * (np.abs(value) + largest) + 8 * eps, 0.0)


def random_case(rng: np.random.Generator) -> Case:
    geometry, function, options = _random_call(rng)
    dtype = str(rng.choice(["f32", "f32", "f32", "f16", "bf16"]))
    steps = tuple(str(rng.choice([*ACTIVATIONS, *COMBINATIONS])) for _ in range(int(rng.integers(0, 5))))
    extras = tuple(
        round_to(np.asarray(rng.standard_normal(_extra_shape(rng, geometry.out_shape))), dtype)
        for step in steps
        if step in COMBINATIONS
    )
    kept = (*((int(rng.integers(0, len(steps) + 1)),) if rng.random() < 0.25 else ()), len(steps))
    x = rng.standard_normal(geometry.in_shape)
    if rng.random() < 0.2:
        for special in (np.nan, np.inf, -np.inf, 1e-40, -0.0):
            x.reshape(-1)[rng.integers(x.size)] = special
    w = rng.standard_normal(geometry.weight_shape)
    w /= w[0].size ** 0.5
    return Case(geometry, function, options, dtype, steps, kept, round_to(x, dtype), round_to(w, dtype), extras)


def _extra_shape(rng: np.random.Generator, out: tuple[int, ...]) -> tuple[int, ...]:
    """A shape that broadcasts against `out`, perhaps of lower rank."""
    kept = rng.random(len(out)) < rng.choice([0.0, 0.5, 1.0])
    return tuple(n if keep else 1 for n, keep in zip(out, kept, strict=True))[int(rng.integers(0, len(out) + 1)) :]


def _random_call(rng: np.random.Generator) -> tuple[Geometry, str, dict[str, Any]]:
    while True:
        try:
            geometry, function, options = _any_call(rng)
        except GeometryError:
            continue
        elements = max(np.prod(geometry.in_shape), np.prod(geometry.out_shape))
        multiplications = np.prod(geometry.out_shape) * np.prod(geometry.weight_shape[1:])
        if elements <= _MAX_ELEMENTS and multiplications <= _MAX_MULTIPLICATIONS:
            return geometry, function, options


def _any_call(rng: np.random.Generator) -> tuple[Geometry, str, dict[str, Any]]:
    """Arguments of one of MLX's functions, and the geometry that they mean, as documented and not by convjit's code."""
    rank = int(rng.choice([1, 2, 2, 2, 3]))

    def draw(low: int, high: int) -> tuple[int, ...]:
        return tuple(int(v) for v in rng.integers(low, high + 1, rank))

    one = (1,) * rank
    groups, group_in, group_out = _random_channels(rng, rank)
    kernel, strides, spatial = draw(1, 4), draw(1, 3), draw(1, (70, 20, 9)[rank - 1])
    match rng.choice(["usual", "usual", "huge kernel", "one output", "pointwise", "large"]):
        case "huge kernel":
            kernel, group_in = draw(1, (120, 20, 7)[rank - 1]), min(group_in, 8)
            spatial = tuple(k + int(rng.integers(0, 6)) for k in kernel)
        case "one output":
            spatial = kernel
        case "pointwise":
            kernel = strides = one
        case "large":
            spatial, group_in = draw(1, (3000, 150, 30)[rank - 1]), min(group_in, 5)
        case _:
            pass
    dilation = draw(1, 3) if rng.random() < 0.3 else one
    x, w = (int(rng.integers(1, 6)), *spatial, groups * group_in), (groups * group_out, *kernel, group_in)

    form = rng.choice(["conv", "conv_transpose", "conv_general"])
    if form == "conv_general":
        dilated = draw(1, 3) if rng.random() < 0.4 else one
        least = -1 if dilated == one else 0  # MLX crops the input before it dilates it
        low, high, flip = draw(least, 3), draw(least, 3), bool(rng.random() < 0.4)
        options: dict[str, Any] = {"stride": strides, "padding": (low, high), "kernel_dilation": dilation}
        options.update(input_dilation=dilated, groups=groups, flip=flip)
        return Geometry.of_shapes(x, w, Window(strides, low, high, dilation, dilated, groups, flip)), form, options
    padding = draw(0, 2)
    if form == "conv":
        window = Window(strides, padding, padding, dilation, one, groups)
        options = {"stride": strides, "padding": padding, "dilation": dilation}
    else:
        padding = tuple(min(p, d * (k - 1)) for p, d, k in zip(padding, dilation, kernel, strict=True))
        more = tuple(int(rng.integers(0, s)) for s in strides)
        low = tuple(d * (k - 1) - p for p, d, k in zip(padding, dilation, kernel, strict=True))
        high = tuple(p + m for p, m in zip(low, more, strict=True))
        window = Window(one, low, high, dilation, strides, groups, flip=True)
        options = {"stride": strides, "padding": padding, "dilation": dilation, "output_padding": more}
    if rank == 1:
        options = {name: value[0] for name, value in options.items()}
    return Geometry.of_shapes(x, w, window), f"{form}{rank}d", {**options, "groups": groups}


def _random_channels(rng: np.random.Generator, rank: int) -> tuple[int, int, int]:
    """Groups, and the input and output channels of each: often one group, often depthwise. MLX has no groups in 3D."""
    if rank < 3 and rng.random() < 0.25:
        return int(rng.choice([3, 8, 16, 17, 33, 64, 100])), 1, int(rng.choice([1, 1, 2, 3]))
    groups = int(rng.choice([1, 1, 1, 2, 3, 7])) if rank < 3 else 1
    return groups, int(rng.choice([1, 2, 3, 5, 8, 16, 17, 32])), int(rng.choice([1, 2, 3, 8, 15, 16, 17, 33, 48, 65]))
