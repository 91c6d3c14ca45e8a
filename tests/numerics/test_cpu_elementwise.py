"""Elementwise kernels of the CPU against NumPy in double precision: random shapes, broadcasts, ops and sums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from harness import from_storage, to_storage
from reference import round_to
from test_cpu_kernels import MACHINES

from convjit.backends import Call, Stretch
from convjit.backends.cpu import CpuBackend
from convjit.emit.cpu import source
from convjit.kernel import Elementwise, Epilogue, Extra, Instruction, Result
from convjit.schedule import Schedule
from convjit.schedule.cpu.elementwise import schedule

Array = npt.NDArray[np.float64]

SAMPLES = 32
OPS = {
    "arith.addf": np.add,
    "arith.subf": np.subtract,
    "arith.mulf": np.multiply,
    "math.tanh": np.tanh,
    "math.absf": np.abs,
    "arith.negf": np.negative,
}
ROUNDING = {"f32": 2e-6, "f16": 1e-3, "bf16": 8e-3}


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
    floats = [*range(len(operands))]
    first = len(operands)
    for number, operand in enumerate(operands):
        if operand.dtype != "f32":
            instructions.append(Instruction("arith.extf", (number,), "f32"))
            floats[number] = first + len(instructions) - 1
    for _ in range(int(rng.integers(1, 9))):
        name = str(rng.choice([*OPS]))
        count = 1 if name in ("math.tanh", "math.absf", "arith.negf") else 2
        instructions.append(Instruction(name, tuple(int(n) for n in rng.choice(floats, count)), "f32"))
        floats.append(first + len(instructions) - 1)
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


def work() -> list[tuple[Elementwise, Schedule]]:
    """Machines in turn; every other kernel in small units."""
    rng = np.random.default_rng(5)
    found: list[tuple[Elementwise, Schedule]] = []
    for number in range(SAMPLES):
        kernel = random_kernel(rng)
        machine = MACHINES[number // 2 % len(MACHINES)]
        chosen = schedule(kernel, machine)
        if number % 2:
            choices = dict(chosen.choices) | {"row_block": 3, "column_block": 2 * machine.lanes}
            chosen = replace(chosen, choices=tuple(choices.items()))
        found.append((kernel, chosen))
    return found


def evaluated(kernel: Elementwise, operands: Sequence[Array]) -> tuple[list[Array], list[Array]]:
    """The results in double precision, and how large a sum's terms are together."""
    values: list[Array] = list(operands)
    for instruction in kernel.body.instructions:
        read = [values[o] for o in instruction.operands]
        values.append(OPS[instruction.op](*read) if instruction.op in OPS else read[0])
    wholes = [np.broadcast_to(values[v], kernel.shape) for v in kernel.body.results]
    axes = tuple(range(len(kernel.shape) - 1))
    exact = [w.sum(axes) if r.is_sum else w for w, r in zip(wholes, kernel.results, strict=True)]
    sizes = [np.abs(w).sum(axes) if r.is_sum else np.abs(w) for w, r in zip(wholes, kernel.results, strict=True)]
    return exact, sizes


def run(backend: CpuBackend, kernel: Elementwise, chosen: Schedule, operands: Sequence[Array]) -> list[Array]:
    read = len(operands)
    results = tuple(range(read, read + len(kernel.results)))
    runner = backend.load(Stretch(read, (Call(kernel, chosen, tuple(range(read)), results),), results))
    stored = [to_storage(v, o.dtype) for v, o in zip(operands, kernel.operands, strict=True)]
    return [from_storage(r, d) for r, d in zip(runner(stored), kernel.result_dtypes, strict=True)]


def check(backend: CpuBackend, kernel: Elementwise, chosen: Schedule, operands: Sequence[Array]) -> None:
    exact, sizes = evaluated(kernel, operands)
    got = run(backend, kernel, chosen, operands)
    for g, e, size, result in zip(got, exact, sizes, kernel.results, strict=True):
        assert g.shape == e.shape
        bound = 4e-6 * size + ROUNDING[result.dtype] * np.abs(e) + 1e-5
        assert np.all(np.abs(g - e) <= bound), (kernel, chosen)


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
def test_long_sums_are_exact(backend: CpuBackend, kernel: Elementwise):
    """Of positive numbers, to 1e-6: no chain of additions is long."""
    x = round_to(np.random.default_rng(3).uniform(0.5, 1.5, kernel.shape), "f32")
    whole, summed = run(backend, kernel, schedule(kernel, MACHINES[0]), [x])
    assert np.array_equal(whole, x)
    np.testing.assert_allclose(summed, x.sum((0, 1)), rtol=1e-6)


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
