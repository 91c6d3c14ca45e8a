"""Every op that an epilogue may hold, in C: exact where it can be, within 6 units in the last place where not.

test_functions.py looks closer at each function.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import reference
from harness import run, schedule_of

from convjit.backends.cpu import CpuBackend
from convjit.emit.cpu.language import C, float_literal
from convjit.emit.cpu.simplify import SIGMOID, simplify
from convjit.geometry import Geometry, plain_window
from convjit.kernel import Epilogue, Extra, Instruction, Kernel

SPECIAL = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 2.0**-126, 1e-40, -1e-40, 1.4e-45, 3.4e38, -3.4e38, 0.5, 2.5]
PREDICATES = [name.removeprefix("arith.cmpf.") for name in C.ops if name.startswith("arith.cmpf.")]
FUNCTIONS = [name for name in C.ops if name.startswith("math.") and name != "math.powf"]


def elements() -> reference.Array:
    """Special values, borders of the functions' ranges, and all magnitudes: a multiple of no vector's length."""
    rng = np.random.default_rng(7)
    borders = [
        s * v for s in (1, -1) for v in (88.7228, 88.8, 87.4, 103.9, 104.1, 17.4, 9.1, 0.927734375, 3.92, 8388607.5)
    ]
    random = [
        rng.uniform(-100, 100, 3000),
        rng.uniform(-5, 5, 3000),
        rng.uniform(-1, 1, 2000),
        1 + rng.uniform(-0.01, 0.01, 1000),
        rng.choice([-1, 1], 3000) * 2.0 ** rng.uniform(-149, 128, 3000),
        rng.integers(-20, 20, 200) / 2,
    ]
    return np.concatenate([SPECIAL, borders, *random, [0.1]]).astype(np.float32).astype(np.float64)


def evaluate(
    backend: CpuBackend, instructions: Sequence[Instruction], inputs: Sequence[reference.Array], results: Sequence[int]
) -> list[reference.Array]:
    """Runs an epilogue whose value 0 is 1 and whose values 1.. are `inputs`, one element an output pixel."""
    size = inputs[0].size
    extras = tuple(Extra((1, size, 1), "f32") for _ in inputs)
    epilogue = Epilogue(("f32",) * (1 + len(inputs)), tuple(instructions), tuple(results))
    dtypes = tuple(epilogue.type_of(r) for r in results)
    kernel = Kernel(Geometry.of_shapes((1, size, 1), (1, 1, 1), plain_window(1)), "f32", extras, epilogue, dtypes)
    shaped = [i.reshape(1, size, 1) for i in inputs]
    got = run(backend, kernel, schedule_of(backend, kernel), np.ones((1, size, 1)), np.ones((1, 1, 1)), shaped)
    return [g.ravel() for g in got]


def in_last_place(got: reference.Array, want: reference.Array) -> reference.Array:
    """The distance in units in the last place of single precision; 0 where both are the same infinity or NaN."""
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = want.astype(np.float32)
        unit = np.spacing(np.abs(np.where(np.isfinite(rounded), rounded, np.float32(3e38)))).astype(np.float64)
        distance = np.abs(got - np.where(np.isinf(rounded), rounded, want)) / unit
    same = (np.isnan(got) & np.isnan(want)) | (got == rounded)
    return np.where(same, 0, np.where(np.isnan(distance), np.inf, distance))


def same_bits(got: reference.Array, want: reference.Array) -> None:
    np.testing.assert_array_equal(got, want.astype(np.float32))
    number = ~np.isnan(want)
    np.testing.assert_array_equal(np.signbit(got)[number], np.signbit(want)[number])


@pytest.mark.usefixtures("guarded_memory")
def test_functions(backend: CpuBackend):
    x = elements()
    instructions = [Instruction(name, (1,), "f32") for name in FUNCTIONS]
    results = evaluate(backend, instructions, [x], range(2, 2 + len(FUNCTIONS)))
    for name, got in zip(FUNCTIONS, results, strict=True):
        (want,) = reference.epilogue(Epilogue(("f32", "f32"), (Instruction(name, (1,), "f32"),), (2,)), [x, x])
        distance = in_last_place(got, want)
        worst = int(distance.argmax())
        assert distance.max() <= 6, (
            f"{name}({x[worst]!r}) = {got[worst]!r}, not {want[worst]!r}: {distance.max():.1f} ulp"
        )
        if name in ("math.absf", "math.ceil", "math.floor", "math.roundeven"):
            same_bits(got, want)


@pytest.mark.parametrize("name", ["math.expm1", "math.tanh", "math.erf", "math.log1p", "math.sqrt"])
@pytest.mark.usefixtures("guarded_memory")
def test_functions_keep_the_sign_of_zero(backend: CpuBackend, name: str):
    (got,) = evaluate(backend, [Instruction(name, (1,), "f32")], [np.array([0.0, -0.0])], [2])
    np.testing.assert_array_equal(np.signbit(got), [False, True])


@pytest.mark.usefixtures("guarded_memory")
def test_arithmetic(backend: CpuBackend):
    a, b = (np.array(v) for v in zip(*itertools.product(SPECIAL, SPECIAL), strict=True))
    a, b = a.astype(np.float32).astype(np.float64), b.astype(np.float32).astype(np.float64)
    names = ["arith.addf", "arith.subf", "arith.mulf", "arith.divf"]
    instructions = [Instruction(name, (1, 2), "f32") for name in names] + [Instruction("arith.negf", (1,), "f32")]
    results = evaluate(backend, instructions, [a, b], range(3, 3 + len(instructions)))
    for instruction, got in zip(instructions, results, strict=True):
        one = Instruction(instruction.op, tuple(o for o in instruction.operands), "f32")
        (want,) = reference.epilogue(Epilogue(("f32",) * 3, (one,), (3,)), [a, a, b])
        with np.errstate(over="ignore"):
            same_bits(got, want)


def ops(instructions: Sequence[Instruction], results: Sequence[int]) -> list[str]:
    """What is left of an epilogue of one extra."""
    simple = simplify(Epilogue(("f32", "f32"), tuple(instructions), tuple(results)))
    return [instruction.op.removeprefix("arith.") for instruction in simple.instructions]


DIVISORS = [2.0, -0.5, 3.0, -6.0, 1.41421354, 1e-3, 2.0**-40, 7e17, 0.0, 1e-30, 3e38, np.inf, np.nan]


@pytest.mark.usefixtures("guarded_memory")
def test_division_by_a_constant(backend: CpuBackend):
    x = elements()
    constants = [Instruction("arith.constant", (), "f32", divisor) for divisor in DIVISORS]
    divisions = [Instruction("arith.divf", (1, 2 + number), "f32") for number in range(len(DIVISORS))]
    first = 2 + len(DIVISORS)
    results = evaluate(backend, [*constants, *divisions], [x], range(first, first + len(DIVISORS)))
    for divisor, got in zip(DIVISORS, results, strict=True):
        with np.errstate(all="ignore"):
            want = x / float(np.float32(divisor))
        assert in_last_place(got, want).max() <= 1, f"x / {divisor}"
        number = ~np.isnan(want)
        np.testing.assert_array_equal(np.signbit(got)[number], np.signbit(want)[number])


@pytest.mark.parametrize(
    ("divisor", "left"),
    [
        (2.0, ["constant", "mulf"]),
        (3.0, ["constant", "mulf", "constant", "mulf", "addf"]),
        (0.0, ["constant", "divf"]),
        (1e-30, ["constant", "divf"]),
        (np.inf, ["constant", "divf"]),
        (np.nan, ["constant", "divf"]),
    ],
)
def test_divisions_that_become_products(divisor: float, left: list[str]):
    instructions = [Instruction("arith.constant", (), "f32", divisor), Instruction("arith.divf", (1, 2), "f32")]
    assert ops(instructions, [3]) == left


def sigmoid(one: float, order: tuple[int, int]) -> list[Instruction]:
    """1 / (`one` + exp(-x)) of value 1, as value 6."""
    return [
        Instruction("arith.negf", (1,), "f32"),
        Instruction("math.exp", (2,), "f32"),
        Instruction("arith.constant", (), "f32", one),
        Instruction("arith.addf", order, "f32"),
        Instruction("arith.divf", (4, 5), "f32"),
    ]


@pytest.mark.parametrize("order", [(3, 4), (4, 3)])
@pytest.mark.usefixtures("guarded_memory")
def test_sigmoid(backend: CpuBackend, order: tuple[int, int]):
    assert ops(sigmoid(1.0, order), [6]) == [SIGMOID]
    x = elements()
    (got,) = evaluate(backend, sigmoid(1.0, order), [x], [6])
    with np.errstate(over="ignore"):
        assert in_last_place(got, 1 / (1 + np.exp(-x))).max() <= 3


def test_what_resembles_a_sigmoid_stays():
    assert SIGMOID not in ops(sigmoid(2.0, (3, 4)), [6])
    unsigned = sigmoid(1.0, (3, 4))
    unsigned[0] = Instruction("math.absf", (1,), "f32")
    assert SIGMOID not in ops(unsigned, [6])


def test_results_are_rounded_once():
    rounded = [Instruction("arith.truncf", (1,), "bf16"), Instruction("arith.extf", (2,), "f32")]
    assert ops(rounded, [2]) == []
    assert ops(rounded, [2, 3]) == ["truncf", "extf"]


def test_values_that_are_results_stay():
    assert ops(sigmoid(1.0, (3, 4)), [6, 3]) == ["negf", "math.exp", SIGMOID]
    assert ops(sigmoid(1.0, (3, 4)), [1]) == []


@pytest.mark.usefixtures("guarded_memory")
def test_power(backend: CpuBackend):
    rng = np.random.default_rng(0)
    a = rng.uniform(0, 20, 2000).astype(np.float32).astype(np.float64)
    b = rng.choice([2.0, 3.0, 0.5, -1.5, 0.0], 2000)
    (got,) = evaluate(backend, [Instruction("math.powf", (1, 2), "f32")], [a, b], [3])
    assert in_last_place(got, a**b).max() <= 4


@pytest.mark.usefixtures("guarded_memory")
def test_comparisons_and_logic(backend: CpuBackend):
    a, b = (np.array(v) for v in zip(*itertools.product([0.0, -0.0, 1.0, -2.0, np.inf, np.nan], repeat=2), strict=True))
    instructions = [Instruction("arith.cmpf", (1, 2), "i1", p) for p in PREDICATES]
    first = 3
    less, unordered = (first + PREDICATES.index(p) for p in ("olt", "uno"))
    true = first + len(instructions)
    instructions += [
        Instruction("arith.constant", (), "i1", True),
        Instruction("arith.andi", (less, true), "i1"),
        Instruction("arith.ori", (less, unordered), "i1"),
        Instruction("arith.xori", (less, true), "i1"),
        Instruction("arith.select", (less, unordered, true), "i1"),
    ]
    truths = list(range(first, first + len(instructions)))
    numbers = [Instruction("arith.uitofp", (v,), "f32") for v in truths]
    chosen = [Instruction("arith.select", (v, 1, 2), "f32") for v in truths]
    everything = [*instructions, *numbers, *chosen]
    results = range(first + len(instructions), first + len(everything))
    epilogue = Epilogue(("f32",) * 3, tuple(everything), tuple(results))
    assert len(PREDICATES) == 14
    for got, want in zip(
        evaluate(backend, everything, [a, b], results), reference.epilogue(epilogue, [a, a, b]), strict=True
    ):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
@pytest.mark.usefixtures("guarded_memory")
def test_rounding_to_half(backend: CpuBackend, dtype: str):
    halfway = np.arange(1, 2**16, 7, dtype=np.uint16).view(np.float16)
    halfway = halfway[np.isfinite(halfway)].astype(np.float64)
    x = np.concatenate(
        [elements(), halfway, halfway + np.spacing(halfway.astype(np.float16)) / 2, [65519.9, 65520.0, -7e4]]
    )
    x = x.astype(np.float32).astype(np.float64)
    instructions = [Instruction("arith.truncf", (1,), dtype), Instruction("arith.extf", (2,), "f32")]
    stored, widened = evaluate(backend, instructions, [x], [2, 3])
    want = reference.round_to(x, dtype)
    for got in (stored, widened):
        np.testing.assert_array_equal(got, want)
        np.testing.assert_array_equal(np.signbit(got), np.signbit(want) | (np.isnan(want) & np.signbit(got)))


@pytest.mark.parametrize(
    "value", [0.0, -0.0, 1.0, -2.5, 0.1, 1e-40, 3.4028235e38, 1e39, -1e39, np.inf, -np.inf, np.nan, 16777216.0, 1e10]
)
@pytest.mark.usefixtures("guarded_memory")
def test_constants(backend: CpuBackend, value: float):
    constant = Instruction("arith.constant", (), "f32", value)
    (got,) = evaluate(backend, [constant], [np.ones(3)], [2])
    with np.errstate(over="ignore"):
        same_bits(got, np.full(3, value))


def test_float_literals_are_c():
    assert [float_literal(v) for v in (1.0, -0.0, 0.5, 1e10, 0.1)] == [
        "1.0f",
        "-0.0f",
        "0.5f",
        "1e+10f",
        "0.100000001f",
    ]
