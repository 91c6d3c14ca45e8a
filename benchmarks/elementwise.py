"""Elementwise kernels that are proven and timed on Metal: what a train step has beside its convolutions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mlx.core as mx

from convjit.kernel import Elementwise, Epilogue, Extra, Instruction, Result

EPILOGUE = "elementwise"
"""What reports call the epilogue of such a kernel, which has none."""

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """A part of a train step.

    Attributes:
        name: for reports.
        shape, small: of its elements; for a simulator.
        operands: how many it reads of its shape, and how many behind them that have one number a channel.
        body: writes its ops; gives the values of its results, and which of them are sums.
        mlx: the same as a user writes it.
    """

    name: str
    shape: Shape
    small: Shape
    operands: tuple[int, int]
    body: Callable[[_Writer], tuple[list[int], list[bool]]]
    mlx: Callable[..., Sequence[mx.array]]

    def kernel(self, dtype: str, *, is_small: bool) -> Elementwise:
        """With elements of `dtype`; what there is of each channel, and sums, are of float32."""
        shape = self.small if is_small else self.shape
        whole, by_channel = self.operands
        operands = [Extra(shape, dtype)] * whole
        operands += [Extra((*(1,) * (len(shape) - 1), shape[-1]), "f32")] * by_channel
        write = _Writer([o.dtype for o in operands])
        values, sums = self.body(write)
        results = [Result(shape[-1:], "f32", True) if is_sum else Result(shape, dtype) for is_sum in sums]
        values = [write.stored(v, r.dtype) for v, r in zip(values, results, strict=True)]
        body = Epilogue(write.inputs, tuple(write.instructions), tuple(values))
        return Elementwise(shape, tuple(operands), body, tuple(results))


class _Writer:
    """Instructions, one after the other; `read` are the operands as float32."""

    def __init__(self, dtypes: Sequence[str]):
        self.inputs = tuple(dtypes)
        self.instructions: list[Instruction] = []
        self.read = [n if dtype == "f32" else self("extf", n) for n, dtype in enumerate(dtypes)]

    def __call__(self, op: str, *operands: int, type: str = "f32", attribute: str | float | None = None) -> int:
        self.instructions.append(Instruction(f"arith.{op}", operands, type, attribute))
        return len(self.inputs) + len(self.instructions) - 1

    def number(self, value: float) -> int:
        return self("constant", attribute=value)

    def relu(self, value: int) -> int:
        zero = self.number(0.0)
        return self("select", self("cmpf", value, zero, type="i1", attribute="ugt"), value, zero)

    def stored(self, value: int, dtype: str) -> int:
        return value if dtype == "f32" else self("truncf", value, type=dtype)


def _normalise(write: _Writer) -> tuple[list[int], list[bool]]:
    x, residual, mean, scale, shift = write.read
    y = write("addf", write("mulf", write("subf", x, mean), scale), shift)
    return [write("addf", write.relu(y), residual)], [False]


def _normalise_backward(write: _Writer) -> tuple[list[int], list[bool]]:
    x, y, gradient, mean, scale = write.read
    zero = write.number(0.0)
    passed = write("select", write("cmpf", y, zero, type="i1", attribute="ogt"), gradient, zero)
    normalised = write("mulf", write("subf", x, mean), scale)
    return [passed, passed, write("mulf", passed, normalised)], [False, True, True]


def _variance(write: _Writer) -> tuple[list[int], list[bool]]:
    x, mean = write.read
    centred = write("subf", x, mean)
    return [write("mulf", centred, centred)], [True]


def _momentum(write: _Writer) -> tuple[list[int], list[bool]]:
    weight, velocity, gradient = write.read
    velocity = write("addf", write("mulf", velocity, write.number(0.9)), gradient)
    return [write("subf", weight, write("mulf", velocity, write.number(0.1))), velocity], [False, False]


def _normalise_by_mlx(
    x: mx.array, residual: mx.array, mean: mx.array, scale: mx.array, shift: mx.array
) -> list[mx.array]:
    return [mx.maximum((x - mean) * scale + shift, 0) + residual]


def _variance_by_mlx(x: mx.array, mean: mx.array) -> list[mx.array]:
    return [mx.square(x - mean).sum((0, 1, 2))]


def _backward_by_mlx(x: mx.array, y: mx.array, gradient: mx.array, mean: mx.array, scale: mx.array) -> list[mx.array]:
    passed = mx.where(y > 0, gradient, 0.0)
    return [passed, passed.sum((0, 1, 2)), (passed * (x - mean) * scale).sum((0, 1, 2))]


def _momentum_by_mlx(weight: mx.array, velocity: mx.array, gradient: mx.array) -> list[mx.array]:
    velocity = velocity * 0.9 + gradient
    return [weight - velocity * 0.1, velocity]


IMAGES, FEW = (32, 56, 56, 64), (3, 7, 9, 20)

STEPS = (
    Step("bn_relu_residual", IMAGES, FEW, (2, 3), _normalise, _normalise_by_mlx),
    Step("bn_relu_backward", IMAGES, FEW, (3, 2), _normalise_backward, _backward_by_mlx),
    Step("bn_variance", IMAGES, FEW, (1, 1), _variance, _variance_by_mlx),
    Step("sgd_momentum", (512, 3, 3, 512), (16, 3, 3, 17), (3, 0), _momentum, _momentum_by_mlx),
)
