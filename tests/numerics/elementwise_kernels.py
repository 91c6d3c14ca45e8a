"""Random elementwise kernels, and between what their results must lie, in NumPy and double precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import numpy as np
import numpy.typing as npt
import reference
from reference import round_to

from convjit.kernel import Elementwise, Epilogue, Extra, Instruction, Result

Array = npt.NDArray[np.float64]

ONE_OPERAND = ("math.tanh", "math.absf", "arith.negf")
TWO_OPERANDS = ("arith.addf", "arith.subf", "arith.mulf")
UNIT = 2.0**-24
"""Half a unit in the last place of single precision, relative; functions are within 6 units."""


def random_kernel(rng: np.random.Generator, shape: tuple[int, ...]) -> Elementwise:
    """A DAG of a few ops; every operand has extents of 1 at random, every value may be a result and a sum."""
    dtypes = ("f32", "f32", "f32", "f16", "bf16")
    keeps = (1.0, 1.0, 0.5, 0.0)
    operands = [
        Extra(tuple(n if rng.random() < keep else 1 for n in shape), str(rng.choice(dtypes)))
        for keep in rng.permutation(keeps)[: int(rng.integers(1, 5))]
    ]
    instructions: list[Instruction] = []

    def add(name: str, *read: int, attribute: str | float | None = None) -> int:
        type_ = "i1" if name == "arith.cmpf" else "f32"
        instructions.append(Instruction(name, tuple(map(int, read)), type_, attribute))
        return len(operands) + len(instructions) - 1

    floats = [n if o.dtype == "f32" else add("arith.extf", n) for n, o in enumerate(operands)]
    read = list(floats)
    for _ in range(int(rng.integers(1, 9))):
        x, y = rng.choice(floats, 2)
        match str(rng.choice([*ONE_OPERAND, *TWO_OPERANDS, "third", "sigmoid", "select"])):
            case "third":
                floats.append(add("arith.divf", x, add("arith.constant", attribute=3.0)))
            case "sigmoid":
                one = add("arith.constant", attribute=1.0)
                exponential = add("math.exp", add("arith.negf", add("math.tanh", x)))
                floats.append(add("arith.divf", one, add("arith.addf", one, exponential)))
            case "select":  # by what is read, which is exact
                greater = add("arith.cmpf", *rng.choice(read, 2), attribute=str(rng.choice(["ogt", "ule", "une"])))
                floats.append(add("arith.select", greater, x, y))
            case name:
                floats.append(add(name, *([x] if name in ONE_OPERAND else [x, y])))
    first = len(operands)
    results: list[Result] = []
    values: list[int] = []
    for value in rng.choice(floats, int(rng.integers(1, 4))):
        dtype, is_sum = str(rng.choice(dtypes)), bool(rng.random() < 0.5)
        results.append(Result(shape[-1:] if is_sum else shape, dtype, is_sum))
        if dtype != "f32":
            instructions.append(Instruction("arith.truncf", (int(value),), dtype))
            value = first + len(instructions) - 1
        values.append(int(value))
    body = Epilogue(tuple(o.dtype for o in operands), tuple(instructions), tuple(values))
    return Elementwise(shape, tuple(operands), body, tuple(results))


def evaluated(kernel: Elementwise, operands: Sequence[Array]) -> tuple[list[Array], list[Array]]:
    """What each result is made of, in double precision: every element, before it is rounded to half.

    Returns:
        The elements, and how far from them single precision may lead, step by step.
    """
    values, errors = list(operands), [np.zeros(o.shape) for o in operands]
    for instruction in kernel.body.instructions:
        value, error = _step(
            instruction, [values[o] for o in instruction.operands], [errors[o] for o in instruction.operands]
        )
        values.append(value)
        errors.append(error)
    return [values[r] for r in kernel.body.results], [errors[r] for r in kernel.body.results]


def _step(instruction: Instruction, x: Sequence[Array], e: Sequence[Array]) -> tuple[Array, Array]:
    name = instruction.op
    if name in ("arith.extf", "arith.truncf"):
        return x[0], e[0]
    if name == "arith.select":
        return np.where(*x), np.where(x[0], e[1], e[2])
    (value,) = reference.epilogue(
        Epilogue(("f32",) * len(x), (replace(instruction, operands=tuple(range(len(x)))),), (len(x),)), x
    )
    match name:
        case "arith.addf" | "arith.subf":
            error = e[0] + e[1]
        case "arith.mulf":
            error = np.abs(x[0]) * e[1] + np.abs(x[1]) * e[0] + e[0] * e[1]
        case "arith.divf":
            error = (e[0] + np.abs(value) * e[1]) / (np.abs(x[1]) - e[1])
        case "math.exp":
            error = value * np.expm1(e[0])
        case "math.tanh" | "math.absf" | "arith.negf":
            error = e[0]
        case _:
            return value, np.zeros(value.shape)
    return value, error + 12 * UNIT * np.abs(value)


def assert_right(kernel: Elementwise, operands: Sequence[Array], results: Sequence[Array]) -> None:
    """Every element, rounded once, lies where single precision may lead; a sum of n terms, n roundings further."""
    axes, length = tuple(range(len(kernel.shape) - 1)), prod(kernel.shape[:-1])
    for got, value, error, result in zip(results, *evaluated(kernel, operands), kernel.results, strict=True):
        value, error = (np.broadcast_to(v, kernel.shape) for v in (value, error))
        if result.is_sum:
            error = error.sum(axes) + length * UNIT * np.abs(value).sum(axes)
            value = value.sum(axes)
        low, high = round_to(value - error, result.dtype), round_to(value + error, result.dtype)
        assert got.shape == value.shape
        assert np.all((low <= got) & (got <= high)), kernel


def numbers_for(kernel: Elementwise, seed: int) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [round_to(rng.uniform(-1.5, 1.5, o.shape), o.dtype) for o in kernel.operands]


def total(shape: tuple[int, ...]) -> Elementwise:
    """x as it is, and its sum."""
    body = Epilogue(("f32",), (), (0, 0))
    return Elementwise(shape, (Extra(shape, "f32"),), body, (Result(shape, "f32"), Result(shape[-1:], "f32", True)))
