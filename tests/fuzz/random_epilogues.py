"""Random expressions behind a convolution: any elementwise DAG, BatchNorm, residuals, gates and sums over pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from definition import stored

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
    "clip": lambda y: mx.clip(y, -0.5, 0.75),
    "sqrt": lambda y: mx.sqrt(mx.abs(y) + 0.1),
    "rsqrt": lambda y: mx.rsqrt(mx.square(y) + 0.5),
    "log": lambda y: mx.log(mx.square(y) + 0.1),
    "log1p": lambda y: mx.log1p(mx.abs(y)),
    "exp": lambda y: mx.exp(-mx.abs(y)),
    "power": lambda y: (mx.abs(y) + 0.1) ** 1.5,
    "replace nan": lambda y: mx.where(mx.isnan(y), 3.0, y),
    "where": lambda y: mx.where(y > 0.3125, y, 0.1 * y),  # a number of all types: MLX rounds it
    "negative": lambda y: -y,
    "reciprocal": lambda y: 1 / (1 + mx.square(y)),
}

COMBINATIONS: dict[str, Callable[[mx.array, mx.array], mx.array]] = {
    "add": lambda y, e: y + e,
    "subtract": lambda y, e: y - e,
    "subtract from": lambda y, e: e - y,
    "multiply": lambda y, e: y * e,
    "divide": lambda y, e: y / (mx.abs(e) + 0.5),
    "divided by": lambda y, e: e / (mx.abs(y) + 0.5),
    "maximum": mx.maximum,
    "minimum": lambda y, e: mx.minimum(e, y),
    "select": lambda y, e: mx.where(y > e, y, e * 0.5),
    "logaddexp": mx.logaddexp,
}


def _halves(y: mx.array) -> mx.array:
    """The second half of the channels, and the first one gated by it."""
    half = -(-y.shape[-1] // 2)
    a, b = mx.split(y, [half], axis=-1)
    return mx.concatenate([b, a * mx.sigmoid(y[..., -1:])], axis=-1)


def _in_rows(y: mx.array) -> mx.array:
    """As attention has it: (N, axis 1, the others) and back."""
    rows = mx.swapaxes(mx.flatten(y, 1, -2), 1, 2)
    return mx.swapaxes(nn.relu(rows * 0.5 + 0.1), 1, 2).reshape(y.shape)


REARRANGED: dict[str, Callable[[mx.array], mx.array]] = {
    "roll": lambda y: mx.concatenate([y[:, 1:], y[:, :1]], axis=1),
    "shift": lambda y: mx.pad(y[..., :-1], [*([(0, 0)] * (y.ndim - 1)), (1, 0)]),
    "shift rows": lambda y: mx.pad(y[:, 1:], [(0, 0), (0, 1), *([(0, 0)] * (y.ndim - 2))]),
    "reverse": lambda y: y[:, ::-1],
    "every second": lambda y: mx.repeat(y[..., ::2], 2, axis=-1)[..., : y.shape[-1]],
    "softmax": lambda y: mx.softmax(y, axis=-1),
    "softmax of rows": lambda y: mx.softmax(y, axis=1),
    "turned": lambda y: mx.transpose(nn.silu(mx.transpose(y))),
    "in rows": _in_rows,
    "halves": _halves,
}
"""Of arrays to arrays of the same shape, in either layout."""


@dataclass(frozen=True)
class Step:
    """One operation on the values so far: 0 is the convolution, 1 what the first step made, and so on.

    Attributes:
        name: of an activation, a combination or a rearrangement, "batch norm", "gate", "minus mean", "sum" or "peak".
        operand: the value that it takes.
        other: the second operand of a combination, or what a peak reads beside it: "input", the number of an extra, or
            minus the number of a value.
    """

    name: str
    operand: int
    other: str | int = 0


@dataclass(frozen=True)
class Epilogue:
    """Steps, the shapes of the extras that they read, and the numbers of the values that are results."""

    steps: tuple[Step, ...]
    extra_shapes: tuple[tuple[int, ...], ...]
    results: tuple[int, ...]
    channels_first: bool

    @property
    def has_norm(self) -> bool:
        return any(step.name == "batch norm" for step in self.steps)

    def __call__(
        self, y: mx.array, x: mx.array, extras: Sequence[mx.array], norm: Callable[[mx.array], mx.array] | None
    ) -> list[mx.array]:
        """The results, for the sums `y` and the input `x` of the convolution, of the same layout."""
        values = [y]
        for number, step in enumerate(self.steps, start=1):
            values.append(stored(self._value(step, values, x, extras, norm), number))
        return [values[number] for number in self.results]

    def _value(
        self,
        step: Step,
        values: list[mx.array],
        x: mx.array,
        extras: Sequence[mx.array],
        norm: Callable[[mx.array], mx.array] | None,
    ) -> mx.array:
        y = values[step.operand]
        if step.name in ACTIVATIONS:
            return ACTIVATIONS[step.name](y)
        if step.name in REARRANGED:
            return REARRANGED[step.name](y)
        pixels = tuple(range(2, y.ndim)) if self.channels_first else tuple(range(1, y.ndim - 1))
        match step.name:
            case "batch norm":
                assert norm is not None
                last = mx.moveaxis(y, 1, -1) if self.channels_first else y
                normed = norm(mx.flatten(last, 1, -2)).reshape(last.shape)  # nn.BatchNorm takes four axes at most
                return mx.moveaxis(normed, -1, 1) if self.channels_first else normed
            case "gate":
                return y * mx.sigmoid(mx.mean(y, axis=pixels, keepdims=True))
            case "minus mean":
                return y - mx.mean(y, axis=-1, keepdims=True)
            case "sum":
                return mx.sum(y, axis=pixels)
            case "peak":
                is_largest = y == mx.max(y, axis=pixels, keepdims=True)  # by 1, where some pixel is
                beside = mx.where(is_largest, 1.0, 0.5 * mx.tanh(self._other(step, values, x, extras)))
                return y + mx.stop_gradient(mx.max(beside, axis=pixels, keepdims=True))
            case _:
                return COMBINATIONS[step.name](y, self._other(step, values, x, extras))

    def _other(self, step: Step, values: list[mx.array], x: mx.array, extras: Sequence[mx.array]) -> mx.array:
        if step.other == "input":
            return x
        assert isinstance(step.other, int)
        return extras[step.other] if step.other >= 0 else values[-step.other - 1]


def random_epilogue(
    rng: np.random.Generator, x: tuple[int, ...], y: tuple[int, ...], channels_first: bool, chained: bool
) -> Epilogue:
    """An epilogue of sums of shape `y`, behind an input of shape `x`, both in the layout of the convolution.

    Args:
        chained: is the first result, of shape `y`, all that the program goes on with?
    """
    steps: list[Step] = []
    shapes: list[tuple[int, ...]] = []
    if rng.random() < 0.5:  # a bias
        steps.append(Step("add", 0, 0))
        shapes.append((y[1], *(1,) * (len(y) - 2)) if channels_first else (y[-1],))
    for _ in range(int(rng.integers(0, 5))):
        operand = len(steps) if rng.random() < 0.7 else int(rng.integers(0, len(steps) + 1))
        match rng.choice(
            ["activation", "activation", "extra", "extra", "value", "input", "norm", "reduction", "order"]
        ):
            case "extra":
                steps.append(Step(str(rng.choice([*COMBINATIONS])), operand, len(shapes)))
                shapes.append(_extra_shape(rng, y))
            case "value":
                other = -1 - int(rng.integers(0, len(steps) + 1))
                steps.append(Step(str(rng.choice([*COMBINATIONS])), operand, other))
            case "input" if x == y:
                steps.append(Step("add", operand, "input"))
            case "norm" if prod(y) > y[1 if channels_first else -1] and not any(
                step.name == "batch norm" for step in steps
            ):
                steps.append(Step("batch norm", operand))
            case "order":
                steps.append(Step(str(rng.choice([*REARRANGED])), operand))
            case "reduction":
                steps.append(Step(str(rng.choice(["gate", "minus mean"])), operand))
            case _:
                steps.append(Step(str(rng.choice([*ACTIVATIONS])), operand))
    results = [len(steps)]
    if not chained and rng.random() < 0.3:
        results.append(int(rng.integers(0, len(steps) + 1)))
    if not chained and rng.random() < 0.1:
        steps.append(Step("sum", results[0]))
        results.append(len(steps))
    apart = rng.spawn(1)[0]  # so that the numbers of any program are what they were before there were peaks
    if apart.random() < 0.15:
        steps.append(Step("peak", results[0], -1 - int(apart.integers(0, results[0] + 1))))
        results[0] = len(steps)
    return Epilogue(tuple(steps), tuple(shapes), tuple(results), channels_first)


def _extra_shape(rng: np.random.Generator, out: tuple[int, ...]) -> tuple[int, ...]:
    """A shape that broadcasts against `out`, perhaps of lower rank."""
    kept = rng.random(len(out)) < rng.choice([0.0, 0.5, 1.0])
    return tuple(n if keep else 1 for n, keep in zip(out, kept, strict=True))[int(rng.integers(0, len(out) + 1)) :]
