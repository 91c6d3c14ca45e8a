"""Every lowering by itself, against MLX's own op: NaN, infinities, signed zeros, denormals, large values."""

from __future__ import annotations

import math
from collections.abc import Sequence

import mlx.core as mx
import numpy as np
import pytest
import reference as kernels
from xdsl.dialects.builtin import TensorType, f32, i1
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Region

from convjit.emit.region import kernel_of
from convjit.geometry import plain_window
from convjit.ir import reference, replay
from convjit.ir.bodies import YieldOp
from convjit.ir.conv import FusedOp
from convjit.ir.mlx import PrimitiveOp
from convjit.passes.elementwise import LOWERINGS, Scalars, is_elementwise

MAGNITUDES = (0.0, 1e-40, 1e-30, 0.1, 0.5, 1.0, 1.5, 2.5, 3.0, 10.0, 80.0, 100.0, 1e4, 1e30, 3.4e38, math.inf, math.nan)
NUMBERS = np.array([sign * m for m in MAGNITUDES for sign in (1, -1)], np.float32)
UNARY = ("Abs", "Ceil", "Cos", "Erf", "Exp", "Expm1", "Floor", "Log1p", "Negative", "Round", "Sigmoid", "Sign", "Sin")
UNARY += ("Square", "Tan", "Tanh")
BINARY = ("Add", "Divide", "Greater", "GreaterEqual", "Less", "LessEqual", "LogAddExp", "Maximum", "Minimum")
BINARY += ("Multiply", "NotEqual", "Power", "Subtract")
LOGICAL = {"LogicalAnd": 2, "LogicalOr": 2, "LogicalNot": 1}
PERIODIC = ("Cos", "Sin", "Tan")
NEAR_ZERO = {"Erf": 1e-7, "Sin": 0.0}
"""How far MLX on a CPU is off: erf(0) is -0 and erf(1e-30) is 0; sin(-0) is 0."""


def evaluated(
    name: str, inputs: Sequence[np.ndarray], arguments: Sequence[object] = (), constants: Sequence[float | None] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """The lowering of a primitive, interpreted by MLX ops and, as a kernel's epilogue, in float64.

    `constants` replaces operands by constants. A predicate comes back as 1 or 0; a boolean operand is `input != 0`.
    """
    shape = (1, len(inputs[0]), 1)
    type_ = TensorType(f32, shape)
    outer = Block(arg_types=[type_, TensorType(f32, (1, 1, 1)), *(type_ for _ in inputs)])
    inner = Block(arg_types=[f32] * (1 + len(inputs)))
    b = Scalars(inner)
    operands = list(inner.args[1:])
    for n, number in enumerate(constants):
        if number is not None:
            operands[n] = b.constant(number)
    operands = [b.compare("une", v, b.constant(0.0)) if is_boolean(name, n) else v for n, v in enumerate(operands)]
    result = LOWERINGS[name](b, operands, arguments)
    inner.add_op(YieldOp(b.to_float(result) if result.type == i1 else result))
    op = FusedOp(outer.args[0], outer.args[1], outer.args[2:], plain_window(1), Region(inner), [type_])
    outer.add_ops([op, ReturnOp(op.outputs[0])])
    FuncOp("forward", ((), ()), Region(outer))
    op.verify()
    arrays = [mx.array(i.reshape(shape)) for i in inputs]
    by_mlx = reference._block(outer, [mx.zeros(shape), mx.zeros((1, 1, 1)), *arrays])[0]
    in_float64 = kernels.epilogue(kernel_of(op).epilogue, [np.zeros(1), *(i.astype(np.float64) for i in inputs)])[0]
    return np.array(by_mlx).reshape(-1), kernels.round_to(np.broadcast_to(in_float64, len(inputs[0])), "f32")


def is_boolean(name: str, operand: int) -> bool:
    return name in LOGICAL or (name == "Select" and operand == 0)


def by_primitive(name: str, inputs: Sequence[np.ndarray], arguments: Sequence[object] = ()) -> np.ndarray:
    """What MLX itself computes."""
    arrays = [mx.array(i) != 0 if is_boolean(name, n) else mx.array(i) for n, i in enumerate(inputs)]
    return np.array(
        replay.call(name, tuple(arguments), arrays, [((len(inputs[0]),), mx.float32)])[0].astype(mx.float32)
    )


def assert_same(got: np.ndarray, want: np.ndarray, inputs: Sequence[np.ndarray], absolute: float | None = None) -> None:
    """Equal to a few ulp; NaN and infinities exactly, and signs of zeros unless there is an absolute tolerance."""
    for g, w, *values in zip(got, want, *inputs, strict=True):
        where = f"at {values}: {g} instead of {w}"
        if not np.isfinite(w) or not np.isfinite(g):
            assert np.isnan(g) == np.isnan(w), where
            assert np.isnan(w) or g == w or abs(g - w) < 1e-5 * abs(w), where
        else:
            assert abs(g - w) <= 4e-6 * abs(w) + max(absolute or 0.0, 1e-37), where
        if absolute is None and w == 0 and g == 0:
            assert np.signbit(g) == np.signbit(w), where


def pairs() -> list[np.ndarray]:
    return [a.reshape(-1) for a in np.meshgrid(NUMBERS, NUMBERS, indexing="ij")]


def check(name: str, inputs: Sequence[np.ndarray], arguments: Sequence[object] = ()) -> None:
    want = by_primitive(name, inputs, arguments)
    for got in evaluated(name, inputs, arguments):
        assert_same(got, want, inputs, absolute=NEAR_ZERO.get(name))


@pytest.mark.parametrize("name", UNARY)
def test_unary(name):
    numbers = NUMBERS[~(np.abs(NUMBERS) > 100)] if name in PERIODIC else NUMBERS
    check(name, [numbers])


@pytest.mark.parametrize("name", BINARY)
def test_binary(name):
    check(name, pairs())


@pytest.mark.parametrize("base", range(3))
def test_log(base):
    check("Log", [NUMBERS], [base])


@pytest.mark.parametrize("reciprocal", [False, True])
def test_sqrt(reciprocal):
    check("Sqrt", [NUMBERS], [reciprocal])


def test_equal():
    check("Equal", pairs(), [False])


def test_equal_with_nan_is_not_elementwise():
    x, y = Block(arg_types=[TensorType(f32, (3,))] * 2).args
    assert is_elementwise(PrimitiveOp("Equal", [x, y], [TensorType(i1, (3,))], [False]))
    assert not is_elementwise(PrimitiveOp("Equal", [x, y], [TensorType(i1, (3,))], [True]))


@pytest.mark.parametrize("name", LOGICAL)
def test_logical(name):
    values = [np.array([0, 0, 1, 1], np.float32), np.array([0, 1, 0, 1], np.float32)]
    check(name, values[: LOGICAL[name]])


def test_select():
    left, right = pairs()
    check("Select", [(np.arange(len(left)) % 3 == 0).astype(np.float32), left, right])


@pytest.mark.parametrize("name", ["Maximum", "Minimum"])
@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("constant", [0.0, -0.0, 6.0, math.inf, -math.inf, math.nan], ids=str)
def test_extremum_with_a_constant(name, side, constant):
    other = np.full_like(NUMBERS, constant)
    inputs = [other, NUMBERS] if side == 0 else [NUMBERS, other]
    want = by_primitive(name, inputs)
    for got in evaluated(name, inputs, constants=[constant, None] if side == 0 else [None, constant]):
        assert_same(got, want, inputs)


@pytest.mark.parametrize("exponent", [1.0, 2.0, 3.0, -1.0, 0.0, -0.0, 0.75, 4.0, -2.0, math.inf, math.nan], ids=str)
def test_power_with_a_constant(exponent):
    inputs = [NUMBERS, np.full_like(NUMBERS, exponent)]
    want = by_primitive("Power", inputs)
    for got in evaluated("Power", inputs, constants=[None, exponent]):
        assert_same(got, want, inputs)


def test_the_table_is_tested():
    assert LOWERINGS.keys() == {*UNARY, *BINARY, *LOGICAL, "Log", "Sqrt", "Equal", "Select"}
