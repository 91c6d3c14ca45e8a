"""The arguments of `@forward` and `@prepare`: which traced array, or prepared value, each one is.

Written as the attributes `mlx.index`, `mlx.kind` and `mlx.name`; see `trace` for the kinds.
"""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.dialects.builtin import DictionaryAttr, IntegerAttr, StringAttr, i64
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute

from convjit.ir.types import from_attribute


def argument_attributes(index: int, kind: str, name: str | None = None) -> DictionaryAttr:
    """The attributes of one argument."""
    attributes: dict[str, Attribute] = {"mlx.index": IntegerAttr(index, i64), "mlx.kind": StringAttr(kind)}
    return DictionaryAttr(attributes if name is None else {**attributes, "mlx.name": StringAttr(name)})


def gradient_attributes(name: str) -> DictionaryAttr:
    """The attributes of a result that is the gradient by the argument of this name."""
    return DictionaryAttr({"mlx.gradient_by": StringAttr(name)})


@dataclass(frozen=True, slots=True)
class FunctionArgument:
    """Where an argument of a function in the IR comes from: `index` counts traced arguments, or prepared results."""

    index: int
    kind: str
    name: str


def arguments_of(function: FuncOp) -> list[FunctionArgument]:
    """The arguments of `@forward` or `@prepare`, read back from their attributes."""
    result: list[FunctionArgument] = []
    for attributes in function.arg_attrs or ():
        assert isinstance(attributes, DictionaryAttr)
        data: dict[str, Attribute] = dict(attributes.data)
        name = data.get("mlx.name")
        result.append(
            FunctionArgument(
                from_attribute(data["mlx.index"]),
                from_attribute(data["mlx.kind"]),
                "" if name is None else from_attribute(name),
            )
        )
    return result
