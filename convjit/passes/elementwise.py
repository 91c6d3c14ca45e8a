"""MLX's elementwise primitives as scalar `arith` and `math` ops: one table, MLX's own semantics.

All arithmetic is f32 (predicates are i1). NaN, infinities and signed zeros behave as in MLX's kernels:
Maximum(x, y) is `isnan(x) ? x : (x > y ? x : y)` and sign(nan) is 0. What steps at a number, such as a comparison, and
casts of half types see the number as an array of its type holds it: other ops of the program saw that, and an infinity
has to stay one.
"""

from __future__ import annotations

import math as python_math
from collections.abc import Callable, Sequence
from typing import Any, TypeGuard

from xdsl.dialects import arith, math
from xdsl.dialects.builtin import BFloat16Type, Float16Type, Float32Type, FloatAttr, IntegerAttr, f32, i1
from xdsl.ir import Attribute, Block, Operation, SSAValue

from convjit.ir.mlx import PrimitiveOp
from convjit.ir.types import element_type

HALF_TYPES = (Float16Type(), BFloat16Type())
FLOAT_TYPES = (Float32Type(), *HALF_TYPES)


class Scalars:
    """Appends scalar ops to a block; every method returns the op's result."""

    def __init__(self, block: Block):
        self._block = block
        self._constants: dict[str, SSAValue] = {}

    def add_op(self, op: Operation) -> SSAValue:
        self._block.add_op(op)
        return op.results[0]

    def constant(self, value: float | bool) -> SSAValue:
        """An i1 for a bool, else an f32; each number is written once."""
        key = repr(value)  # tells -0.0 from 0.0, and finds nan
        if key not in self._constants:
            attribute = IntegerAttr(int(value), i1) if isinstance(value, bool) else FloatAttr(value, f32)
            self._constants[key] = self.add_op(arith.ConstantOp(attribute))
        return self._constants[key]

    def add(self, x: SSAValue, y: SSAValue) -> SSAValue:
        return self.add_op(arith.AddfOp(x, y))

    def subtract(self, x: SSAValue, y: SSAValue) -> SSAValue:
        return self.add_op(arith.SubfOp(x, y))

    def multiply(self, x: SSAValue, y: SSAValue) -> SSAValue:
        return self.add_op(arith.MulfOp(x, y))

    def divide(self, x: SSAValue, y: SSAValue) -> SSAValue:
        return self.add_op(arith.DivfOp(x, y))

    def compare(self, predicate: str, x: SSAValue, y: SSAValue) -> SSAValue:
        return self.add_op(arith.CmpfOp(x, y, predicate))

    def select(self, condition: SSAValue, x: SSAValue, y: SSAValue) -> SSAValue:
        return self.add_op(arith.SelectOp(condition, x, y))

    def either(self, x: SSAValue, y: SSAValue) -> SSAValue:
        return self.add_op(arith.OrIOp(x, y))

    def apply(self, op: type[Any], x: SSAValue) -> SSAValue:
        return self.add_op(op(x))

    def to_float(self, x: SSAValue) -> SSAValue:
        return self.add_op(arith.UIToFPOp(x, f32))

    def rounded(self, x: SSAValue, half: Attribute) -> SSAValue:
        """`x` rounded to a half type, as f32 again."""
        if isinstance(made := x.owner, arith.ExtFOp) and made.input.type == half:
            return x
        narrow = self.add_op(arith.TruncFOp(x, half))  # pyright: ignore[reportArgumentType]
        return self.add_op(arith.ExtFOp(narrow, f32))

    def stored(self, x: SSAValue, type_: Attribute) -> SSAValue:
        """An f32 as an array of this element type holds it."""
        return x if type_ == f32 else self.add_op(arith.TruncFOp(x, type_))  # pyright: ignore[reportArgumentType]


Arguments = Sequence[Any]
Lowering = Callable[[Scalars, Sequence[SSAValue], Arguments], SSAValue]


def number_of(value: SSAValue) -> float | None:
    """The number that a scalar constant holds, else None."""
    op = value.owner
    if isinstance(op, arith.ConstantOp) and isinstance(op.value, FloatAttr):
        return op.value.value.data
    return None


def _is_number(value: SSAValue) -> bool:
    number = number_of(value)
    return number is not None and not python_math.isnan(number)


def _unary(op: type[Any]) -> Lowering:
    return lambda b, x, a: b.apply(op, x[0])


def _compare(predicate: str) -> Lowering:
    return lambda b, x, a: b.compare(predicate, x[0], x[1])


def _extremum(ordered: str, unordered: str) -> Lowering:
    """isnan(x) ? x : (x > y ? x : y), with the test for NaN left out where a constant makes it needless."""

    def lower(b: Scalars, x: Sequence[SSAValue], a: Arguments) -> SSAValue:
        left, right = x
        if _is_number(left):
            first = b.compare(ordered, left, right)
        elif _is_number(right):
            first = b.compare(unordered, left, right)
        else:
            first = b.either(b.compare(ordered, left, right), b.compare("uno", left, left))
        return b.select(first, left, right)

    return lower


def _sigmoid(b: Scalars, x: Sequence[SSAValue], a: Arguments) -> SSAValue:
    """1 / (1 + exp(-x)): an exp that overflows gives the right limit, 0."""
    one = b.constant(1.0)
    return b.divide(one, b.add(one, b.apply(math.ExpOp, b.apply(arith.NegfOp, x[0]))))


def _sign(b: Scalars, x: Sequence[SSAValue], a: Arguments) -> SSAValue:
    zero = b.constant(0.0)
    positive, negative = b.compare("ogt", x[0], zero), b.compare("olt", x[0], zero)
    return b.subtract(b.to_float(positive), b.to_float(negative))


def _log_add_exp(b: Scalars, x: Sequence[SSAValue], a: Arguments) -> SSAValue:
    left, right = x
    greater = b.compare("ogt", left, right)
    high, low = b.select(greater, left, right), b.select(greater, right, left)
    summed = b.add(high, b.apply(math.Log1pOp, b.apply(math.ExpOp, b.subtract(low, high))))
    extreme = b.either(
        b.compare("oeq", low, b.constant(-python_math.inf)), b.compare("oeq", high, b.constant(python_math.inf))
    )
    ordered = b.select(extreme, high, summed)
    return b.select(b.compare("uno", left, right), b.add(left, right), ordered)


def _power(b: Scalars, x: Sequence[SSAValue], a: Arguments) -> SSAValue:
    base, exponent = x
    match number_of(exponent):
        case 1.0:
            return base
        case 2.0:
            return b.multiply(base, base)
        case 3.0:
            return b.multiply(b.multiply(base, base), base)
        case -1.0:
            return b.divide(b.constant(1.0), base)
        case _:
            return b.add_op(math.PowFOp(base, exponent))


_LOG = (math.Log2Op, math.Log10Op, math.LogOp)

LOWERINGS: dict[str, Lowering] = {
    "Abs": _unary(math.AbsFOp),
    "Add": lambda b, x, a: b.add(x[0], x[1]),
    "Ceil": _unary(math.CeilOp),
    "Cos": _unary(math.CosOp),
    "Divide": lambda b, x, a: b.divide(x[0], x[1]),
    "Equal": _compare("oeq"),
    "Erf": _unary(math.ErfOp),
    "Exp": _unary(math.ExpOp),
    "Expm1": _unary(math.ExpM1Op),
    "Floor": _unary(math.FloorOp),
    "Greater": _compare("ogt"),
    "GreaterEqual": _compare("oge"),
    "Less": _compare("olt"),
    "LessEqual": _compare("ole"),
    "Log": lambda b, x, a: b.apply(_LOG[a[0]], x[0]),
    "Log1p": _unary(math.Log1pOp),
    "LogAddExp": _log_add_exp,
    "LogicalAnd": lambda b, x, a: b.add_op(arith.AndIOp(x[0], x[1])),
    "LogicalNot": lambda b, x, a: b.add_op(arith.XOrIOp(x[0], b.constant(True))),
    "LogicalOr": lambda b, x, a: b.either(x[0], x[1]),
    "Maximum": _extremum("ogt", "ugt"),
    "Minimum": _extremum("olt", "ult"),
    "Multiply": lambda b, x, a: b.multiply(x[0], x[1]),
    "Negative": _unary(arith.NegfOp),
    "NotEqual": _compare("une"),
    "Power": _power,
    "Round": _unary(math.RoundEvenOp),
    "Select": lambda b, x, a: b.select(x[0], x[1], x[2]),
    "Sigmoid": _sigmoid,
    "Sign": _sign,
    "Sin": _unary(math.SinOp),
    "Sqrt": lambda b, x, a: b.apply(math.RsqrtOp if a[0] else math.SqrtOp, x[0]),
    "Square": lambda b, x, a: b.multiply(x[0], x[0]),
    "Subtract": lambda b, x, a: b.subtract(x[0], x[1]),
    "Tan": _unary(math.TanOp),
    "Tanh": _unary(math.TanhOp),
}
"""How each primitive is written; "AsType" is none of them, because it depends on the types."""

COMPARISONS = ("Equal", "Greater", "GreaterEqual", "Less", "LessEqual", "NotEqual")

STEPS = ("Ceil", "Floor", "Round", "Sign", *COMPARISONS)
"""What takes numbers next to each other to numbers apart."""

_BOOLEAN_OPERANDS = {"LogicalAnd": (0, 1), "LogicalNot": (0,), "LogicalOr": (0, 1), "Select": (0,)}


def is_elementwise(op: Operation | Block) -> TypeGuard[PrimitiveOp]:
    """Is it a primitive that can become scalar ops?"""
    if not isinstance(op, PrimitiveOp) or len(op.results) != 1 or element_type(op.results[0]) not in (*FLOAT_TYPES, i1):
        return False
    name, operands = op.primitive.data, [element_type(v) for v in op.operands]
    if name == "AsType":
        return operands[0] in (*FLOAT_TYPES, i1)
    if name not in LOWERINGS or (name == "Equal" and op.python_arguments[0]):
        return False
    boolean = _BOOLEAN_OPERANDS.get(name, ())
    return all(t == i1 if n in boolean else t in FLOAT_TYPES for n, t in enumerate(operands))


def scalar_of(scalars: Scalars, op: PrimitiveOp, operands: Sequence[SSAValue]) -> SSAValue:
    """An elementwise primitive as scalar ops; returns the last one's result."""
    name, source = op.primitive.data, element_type(op.operands[0])
    if source in HALF_TYPES and name in ("AsType", *STEPS):
        operands = [v if number_of(v) is not None else scalars.rounded(v, source) for v in operands]
    if name == "AsType":
        return _cast(scalars, operands[0], element_type(op.results[0]))
    return LOWERINGS[name](scalars, operands, op.python_arguments)


def _cast(scalars: Scalars, value: SSAValue, target: Attribute) -> SSAValue:
    if value.type == i1:
        return value if target == i1 else scalars.to_float(value)
    if target == i1:
        return scalars.compare("une", value, scalars.constant(0.0))
    return scalars.rounded(value, target) if target in HALF_TYPES else value
