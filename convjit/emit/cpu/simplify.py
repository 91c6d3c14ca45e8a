"""Epilogues with ops that a CPU is slow at replaced by quicker ones of the same meaning."""

from __future__ import annotations

import struct
from dataclasses import replace

from convjit.emit.epilogue import without_unused
from convjit.kernel import Epilogue, Instruction

SIGMOID = "cpu.sigmoid"
"""1 / (1 + exp(-x)), an op that only this module makes."""


def simplify(epilogue: Epilogue) -> Epilogue:
    """An equal epilogue without divisions by constants, and with each 1 / (1 + exp(-x)) as one op.

    Single precision is kept: x / c becomes x * h + x * l, where h + l is 1 / c to twice the precision, and h and l
    have one sign, so that infinities stay what they are. Results are not rounded to half precision: stores do it.
    """
    return without_unused(_Simplifier(epilogue).run())


class _Simplifier:
    """Copies instructions one after the other; some become several, so values get new numbers."""

    def __init__(self, epilogue: Epilogue):
        self._source = epilogue
        self._first = len(epilogue.inputs)
        self._made: list[Instruction] = []
        self._numbers = list(range(self._first))

    def run(self) -> Epilogue:
        for instruction in self._source.instructions:
            self._numbers.append(self._copy(instruction))
        results = tuple(self._before_rounding(self._numbers[r]) for r in self._source.results)
        return Epilogue(self._source.inputs, tuple(self._made), results)

    def _copy(self, instruction: Instruction) -> int:
        operands = tuple(self._numbers[o] for o in instruction.operands)
        if instruction.op != "arith.divf":
            return self._add(replace(instruction, operands=operands))
        if (x := self._sigmoid_of(*operands)) is not None:
            return self._float(SIGMOID, x)
        parts = _reciprocal(self._constant(operands[1]))
        if parts is None:
            return self._add(replace(instruction, operands=operands))
        products = [self._float("arith.mulf", operands[0], self._number(part)) for part in parts]
        return products[0] if len(products) == 1 else self._float("arith.addf", *products)

    def _before_rounding(self, value: int) -> int:
        made = self._made_by(value, "arith.truncf")
        return made.operands[0] if made else value

    def _sigmoid_of(self, one: int, denominator: int) -> int | None:
        """x, if `one` / `denominator` is 1 / (1 + exp(-x))."""
        if self._constant(one) != 1 or (total := self._made_by(denominator, "arith.addf")) is None:
            return None
        for term, other in (total.operands, total.operands[::-1]):
            exponential = self._made_by(other, "math.exp")
            if self._constant(term) == 1 and exponential:
                negated = self._made_by(exponential.operands[0], "arith.negf")
                return negated.operands[0] if negated else None
        return None

    def _made_by(self, value: int, op: str) -> Instruction | None:
        if value < self._first or self._made[value - self._first].op != op:
            return None
        return self._made[value - self._first]

    def _constant(self, value: int) -> float | None:
        made = self._made_by(value, "arith.constant")
        return float(made.attribute) if made and isinstance(made.attribute, (int, float)) else None

    def _number(self, value: float) -> int:
        return self._add(Instruction("arith.constant", (), "f32", value))

    def _float(self, op: str, *operands: int) -> int:
        return self._add(Instruction(op, operands, "f32"))

    def _add(self, instruction: Instruction) -> int:
        self._made.append(instruction)
        return self._first + len(self._made) - 1


def _reciprocal(divisor: float | None) -> list[float] | None:
    """One or two singles of one sign that add up to 1 / `divisor`; None if they would be too large or too small."""
    if divisor is None or not 2.0**-60 < abs(divisor) < 2.0**60:
        return None
    (single,) = struct.unpack("f", struct.pack("f", divisor))
    exact = 1 / single
    packed = struct.pack("f", exact)
    (high,) = struct.unpack("f", packed)
    if abs(high) > abs(exact):  # the next one towards zero
        (bits,) = struct.unpack("I", packed)
        (high,) = struct.unpack("f", struct.pack("I", bits - 1))
    return [high] if high == exact else [high, exact - high]
