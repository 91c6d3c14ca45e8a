"""An epilogue as statements of a target language: one table a language, one walk for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from convjit.kernel import Epilogue, Instruction


@dataclass(frozen=True, slots=True)
class Language:
    """How a language writes the ops of an epilogue.

    Attributes:
        types: IR type ("f32", "i1", ...) -> the type of the variable that holds such a value.
        ops: op name ("arith.addf") -> its expression, with `{0}`, `{1}`, ... for the operands. "arith.cmpf" is
            looked up with its predicate, as "arith.cmpf.ogt"; "arith.extf" and "arith.truncf" with the half type
            they read or make, as "arith.truncf.bf16".
        constant: (value, IR type) -> its literal.
    """

    types: Mapping[str, str]
    ops: Mapping[str, str]
    constant: Callable[[float | bool, str], str]


def statements(epilogue: Epilogue, inputs: Sequence[str], language: Language) -> tuple[list[str], list[str]]:
    """Returns the lines that declare a variable for each instruction, but constants, and the names of the results.

    Args:
        epilogue: what to write.
        inputs: the names of variables that hold the sum and the elements of the extras.
        language: how to write it.
    """
    names = list(inputs)
    lines: list[str] = []
    for number, instruction in enumerate(epilogue.instructions):
        name = f"v{number}"
        expression = _expression(epilogue, instruction, names, language)
        if instruction.op == "arith.constant":
            names.append(f"({expression})" if expression.startswith("-") else expression)
            continue
        lines.append(f"{language.types[instruction.type]} {name} = {expression};")
        names.append(name)
    return lines, [names[r] for r in epilogue.results]


def _expression(epilogue: Epilogue, instruction: Instruction, names: Sequence[str], language: Language) -> str:
    match instruction.op:
        case "arith.constant":
            assert isinstance(instruction.attribute, (bool, int, float))
            return language.constant(instruction.attribute, instruction.type)
        case "arith.cmpf":
            key = f"arith.cmpf.{instruction.attribute}"
        case "arith.truncf":
            key = f"arith.truncf.{instruction.type}"
        case "arith.extf":
            key = f"arith.extf.{epilogue.type_of(instruction.operands[0])}"
        case op:
            key = op
    return language.ops[key].format(*(names[o] for o in instruction.operands))


def unsupported(epilogue: Epilogue, language: Language) -> str | None:
    """The first op of `epilogue` that `language` cannot write, or None."""
    for instruction in epilogue.instructions:
        try:
            _expression(epilogue, instruction, ["x"] * (len(epilogue.inputs) + len(epilogue.instructions)), language)
        except KeyError as e:
            return str(e.args[0])
    return None


def without_unused(epilogue: Epilogue) -> Epilogue:
    """Without the instructions on which no result depends."""
    first = len(epilogue.inputs)
    used = {*epilogue.results}
    for number in range(first + len(epilogue.instructions) - 1, first - 1, -1):
        if number in used:
            used.update(epilogue.instructions[number - first].operands)
    kept = [*range(first), *sorted(number for number in used if number >= first)]
    renumbered = {number: position for position, number in enumerate(kept)}
    return Epilogue(
        epilogue.inputs,
        tuple(
            replace(instruction, operands=tuple(renumbered[o] for o in instruction.operands))
            for instruction in (epilogue.instructions[number - first] for number in kept[first:])
        ),
        tuple(renumbered[r] for r in epilogue.results),
    )
