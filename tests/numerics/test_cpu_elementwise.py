"""Elementwise kernels of the CPU against NumPy in double precision: random shapes, broadcasts, ops and sums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import numpy as np
import numpy.typing as npt
import pytest
import reference
from harness import from_storage, to_storage
from reference import round_to
from test_cpu_kernels import MACHINES

from convjit.backends import Call, Stretch
from convjit.backends.cpu import CpuBackend
from convjit.emit.cpu import source
from convjit.kernel import Elementwise, Epilogue, Extra, Instruction, Result
from convjit.schedule import Schedule
from convjit.schedule.cpu.elementwise import schedule
from convjit.schedule.cpu.machine import Machine

Array = npt.NDArray[np.float64]

SAMPLES = 32
ONE_OPERAND = ("math.tanh", "math.absf", "arith.negf")
TWO_OPERANDS = ("arith.addf", "arith.subf", "arith.mulf")
UNIT = 2.0**-24
"""Half a unit in the last place of single precision, relative; functions are within 6 units."""


def random_shape(rng: np.random.Generator) -> tuple[int, ...]:
    rank = int(rng.integers(1, 5))
    return (*(int(n) for n in rng.choice([1, 2, 3, 7, 40], rank - 1)), int(rng.choice([1, 3, 8, 16, 17, 40, 1100])))


def random_kernel(rng: np.random.Generator) -> Elementwise:
    """A DAG of a few ops; every operand has extents of 1 at random, every value may be a result and a sum."""
    shape = random_shape(rng)
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


def random_schedule(rng: np.random.Generator, kernel: Elementwise, machine: Machine) -> Schedule:
    """That of the machine, or one of small units."""
    chosen = schedule(kernel, machine)
    if rng.random() < 0.5:
        return chosen
    choices = dict(chosen.choices) | {"row_block": 3, "column_block": 2 * machine.lanes}
    return replace(chosen, choices=tuple(choices.items()))


def work() -> list[tuple[Elementwise, Schedule]]:
    """Machines in turn."""
    rng = np.random.default_rng(5)
    kernels = [random_kernel(rng) for _ in range(SAMPLES)]
    return [(k, random_schedule(rng, k, MACHINES[n // 2 % len(MACHINES)])) for n, k in enumerate(kernels)]


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


def run(backend: CpuBackend, kernel: Elementwise, chosen: Schedule, operands: Sequence[Array]) -> list[Array]:
    read = len(operands)
    results = tuple(range(read, read + len(kernel.results)))
    runner = backend.load(Stretch(read, (Call(kernel, chosen, tuple(range(read)), results),), results))
    stored = [to_storage(v, o.dtype) for v, o in zip(operands, kernel.operands, strict=True)]
    return [from_storage(r, d) for r, d in zip(runner(stored), kernel.result_dtypes, strict=True)]


def check(backend: CpuBackend, kernel: Elementwise, chosen: Schedule, operands: Sequence[Array]) -> None:
    """Every element, rounded once, lies where single precision may lead; a sum of n terms, n roundings further."""
    axes, length = tuple(range(len(kernel.shape) - 1)), prod(kernel.shape[:-1])
    got = run(backend, kernel, chosen, operands)
    for g, value, error, result in zip(got, *evaluated(kernel, operands), kernel.results, strict=True):
        value, error = (np.broadcast_to(v, kernel.shape) for v in (value, error))
        if result.is_sum:
            error = error.sum(axes) + length * UNIT * np.abs(value).sum(axes)
            value = value.sum(axes)
        low, high = round_to(value - error, result.dtype), round_to(value + error, result.dtype)
        assert g.shape == value.shape
        assert np.all((low <= g) & (g <= high)), (kernel, chosen)


def numbers_for(kernel: Elementwise, seed: int) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [round_to(rng.uniform(-1.5, 1.5, o.shape), o.dtype) for o in kernel.operands]


def total(shape: tuple[int, ...]) -> Elementwise:
    """x as it is, and its sum."""
    body = Epilogue(("f32",), (), (0, 0))
    return Elementwise(shape, (Extra(shape, "f32"),), body, (Result(shape, "f32"), Result(shape[-1:], "f32", True)))


TOTALS = [total((n, 3, channels)) for n, channels in ((1, 16), (400, 16), (1000, 3), (2000, 64))]


@pytest.fixture(scope="module", autouse=True)
def compiled(backend: CpuBackend) -> None:
    """All kernels at once, in parallel."""
    backend.compile([*work(), *((k, schedule(k, MACHINES[0])) for k in TOTALS)], lambda done, total: None)


@pytest.mark.parametrize("number", range(SAMPLES))
@pytest.mark.usefixtures("guarded_memory")
def test_random_kernel(backend: CpuBackend, number: int):
    kernel, chosen = work()[number]
    check(backend, kernel, chosen, numbers_for(kernel, number))


@pytest.mark.usefixtures("guarded_memory")
@pytest.mark.parametrize("kernel", TOTALS, ids=lambda k: "x".join(map(str, k.shape)))
@pytest.mark.parametrize("least", [0.5, 1.5])
def test_long_sums_are_exact(backend: CpuBackend, kernel: Elementwise, least: float):
    """Of positive numbers, to 4e-7: no chain of additions is long, not even where every one of it rounds the same way,
    since all numbers of a channel are equal."""
    x = round_to(np.random.default_rng(3).uniform(least, 1.5, kernel.shape), "f32")
    x[:] = x if least < 1.5 else round_to(np.random.default_rng(3).uniform(1, 2, kernel.shape[-1]), "f32")
    whole, summed = run(backend, kernel, schedule(kernel, MACHINES[0]), [x])
    assert np.array_equal(whole, x)
    np.testing.assert_allclose(summed, x.sum((0, 1)), rtol=4e-7)


@pytest.mark.usefixtures("guarded_memory")
def test_infinities_and_nan_stay_in_their_channel(backend: CpuBackend):
    kernel = TOTALS[1]
    x = np.ones(kernel.shape)
    x[17, 1, 2], x[30, 0, 5], x[31, 0, 5], x[399, 2, 9] = np.nan, np.inf, -np.inf, np.inf
    _, summed = run(backend, kernel, schedule(kernel, MACHINES[0]), [x])
    assert np.isnan(summed[[2, 5]]).all() and summed[9] == np.inf
    assert np.array_equal(np.delete(summed, [2, 5, 9]), np.full(13, 1200.0))


def test_kernels_that_differ_in_rows_share_a_text():
    texts = {source(total((n, 5, 16)), schedule(total((n, 5, 16)), MACHINES[0])).text for n in (2, 3, 700)}
    assert len(texts) == 1
    assert source(total((2, 5, 17)), schedule(total((2, 5, 17)), MACHINES[0])).text not in texts


def test_neighbouring_axes_are_one():
    kernel = Elementwise(
        (4, 5, 1, 6, 7),
        (Extra((4, 5, 1, 6, 7), "f32"), Extra((4, 1, 1, 1, 7), "f32"), Extra((1, 1, 1, 1, 1), "f32")),
        Epilogue(("f32", "f32", "f32"), (), (0,)),
        (Result((4, 5, 1, 6, 7), "f32"),),
    )
    same = kernel.collapsed()
    assert same.shape == (4, 30, 7) and [o.shape for o in same.operands] == [(4, 30, 7), (4, 1, 7), (1, 1, 1)]
    assert total((3, 5, 7)).collapsed().shape == (15, 7) and total((7,)).collapsed().shape == (1, 7)
