"""What happens to every element before it is stored, and the arrays that it reads."""

from __future__ import annotations

from dataclasses import dataclass

DTYPES = {"f32": 4, "f16": 2, "bf16": 2}
"""The storage types a kernel reads and writes, with their sizes in bytes."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """One scalar op of an epilogue, in the order of evaluation.

    Attributes:
        op: the name of an `arith` or `math` op, such as "arith.addf", "math.exp", "arith.cmpf", "arith.select".
        operands: value numbers: inputs of the epilogue first, then one a preceding instruction.
        type: the type of the result: "f32", "f16", "bf16" or "i1". All arithmetic is done in f32; the half types
            only come out of `arith.truncf` and go into `arith.extf`.
        attribute: the predicate of "arith.cmpf" ("ogt", "uno", ...), the value of "arith.constant", else None.
    """

    op: str
    operands: tuple[int, ...]
    type: str
    attribute: str | float | bool | None = None


@dataclass(frozen=True, slots=True)
class Epilogue:
    """What happens to every output element between the sum and the store.

    Value 0 is the sum (f32), values 1.. are the matching elements of the extras, the rest are the instructions'.
    """

    inputs: tuple[str, ...]
    instructions: tuple[Instruction, ...]
    results: tuple[int, ...]

    def type_of(self, value: int) -> str:
        if value < len(self.inputs):
            return self.inputs[value]
        return self.instructions[value - len(self.inputs)].type


@dataclass(frozen=True, slots=True)
class Extra:
    """An array that the epilogue reads: a bias, a residual, a scale.

    `shape` has the rank of the output, 1 on every axis along which it is broadcast.
    """

    shape: tuple[int, ...]
    dtype: str


def identity_epilogue(dtype: str) -> Epilogue:
    """The epilogue of a bare convolution: round once, store."""
    if dtype == "f32":
        return Epilogue(("f32",), (), (0,))
    return Epilogue(("f32",), (Instruction("arith.truncf", (0,), dtype),), (1,))
