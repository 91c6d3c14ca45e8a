"""MLX function -> module: MLX's own tracer (`mx.export_function`) hands over every primitive.

    func.func @forward(%x: tensor<1x8x8x3xf32> {mlx.index = 0 : i64, mlx.kind = "input", mlx.name = "x"},
                       %conv.weight: tensor<16x3x3x3xf32> {..., mlx.kind = "parameter", mlx.name = "conv.weight"}) ...

Every primitive becomes one `mlx.primitive`, every captured scalar one `mlx.constant`. An argument's `mlx.kind` is
    input      an array among the call's arguments
    parameter  an array in a module's slot: prepared once a version
    state      such an array that the program also replaces (BatchNorm's running statistics in training), and MLX's
               random state, where the program draws from it
    constant   a larger array that the function captured: frozen
and `mlx.index` counts the arguments as they are traced: inputs, the random state, slots, constants. A result that is a
gradient has the name of the argument that it is by, as `mlx.gradient_by`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import mlx.core as mx
from xdsl.dialects.builtin import ArrayAttr, FunctionType, ModuleOp
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import SSAValue

from convjit.errors import TraceError
from convjit.ir import replay
from convjit.ir.arguments import argument_attributes, gradient_attributes
from convjit.ir.mlx import ConstantOp, PrimitiveOp
from convjit.ir.types import tensor_type

Kind = Literal["input", "parameter", "state", "constant"]


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of `@forward`."""

    name: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Tape:
    """What MLX's tracer reported of one function.

    Attributes:
        inputs, outputs: ids of the traced arrays.
        constants: id -> captured array.
        shapes: id -> shape and dtype of every input.
        primitives: MLX's records, in topological order.
    """

    inputs: list[str]
    outputs: list[tuple[str, tuple[int, ...], mx.Dtype]]
    constants: dict[str, mx.array]
    shapes: dict[str, tuple[tuple[int, ...], mx.Dtype]]
    primitives: list[dict[str, Any]]

    def frozen(self) -> dict[str, mx.array]:
        """The constants that are larger than a scalar: they become arguments."""
        return {name: a for name, a in self.constants.items() if a.ndim > 0 or a.dtype == mx.complex64}


def record(function: Callable[..., list[mx.array]], arrays: Sequence[mx.array]) -> Tape:
    """Run `function` on tracers in place of `arrays` and record what it does.

    Raises:
        TraceError: if MLX cannot trace it (it evaluates an array, say), or reports something unknown.
    """
    records: list[dict[str, Any]] = []
    try:
        _export(records, function, arrays)
    except TraceError:
        raise
    except ValueError as e:
        raise TraceError(_why(str(e))) from e
    headers = {r["type"]: r for r in records if r["type"] != "primitive"}
    inputs = headers["inputs"]["inputs"]
    tape = Tape(
        [name for name, _, _ in inputs],
        [(name, tuple(shape), dtype) for name, shape, dtype in headers["outputs"]["outputs"]],
        dict(headers["constants"]["constants"]),
        {name: (tuple(shape), dtype) for name, shape, dtype in inputs},
        [r for r in records if r["type"] == "primitive"],
    )
    _check(tape)
    return tape


def _export(records: list[dict[str, Any]], function: Callable[..., list[mx.array]], arrays: Sequence[mx.array]) -> None:
    try:
        mx.export_function(records.append, function, *arrays)
    except ValueError as e:
        if "primitive Compiled" not in str(e):
            raise
        # MLX cannot take an `mx.compile`d function over constants apart; without mx.compile it is plain ops.
        records.clear()
        mx.disable_compile()
        try:
            mx.export_function(records.append, function, *arrays)
        finally:
            mx.enable_compile()


def _why(message: str) -> str:
    if "eval" in message and "transformation" in message:
        return (
            "it evaluates an array (mx.eval, .item(), print, or `if` on an array); "
            "move that out of the compiled function"
        )
    return f"MLX cannot trace it: {message.splitlines()[0]}"


def _check(tape: Tape) -> None:
    defined = {*tape.inputs, *tape.constants}
    for r in tape.primitives:
        try:
            replay.check(r["name"], r["arguments"])
        except replay.UnknownPrimitive as e:
            raise TraceError(str(e)) from e
        defined.update(name for name, _, _ in r["outputs"])
    if any(name not in defined for name, _, _ in tape.outputs):
        raise TraceError("MLX's tracer lost one of its outputs (it returns both a value and its stop_gradient)")


def to_module(
    tape: Tape,
    arguments: Sequence[Argument],
    constant_names: Sequence[str] | None = None,
    gradients_by: Sequence[str] = (),
) -> tuple[ModuleOp, list[mx.array]]:
    """The tape as IR, and the captured arrays that became trailing arguments of kind "constant".

    Args:
        tape: what `record` returned.
        arguments: a name and a kind for each input of the tape.
        constant_names: a name for each of `tape.frozen()`.
        gradients_by: the names of arguments, where the outputs are the gradients by these.
    """
    captured = tape.frozen()
    scalars = {name: a for name, a in tape.constants.items() if name not in captured}
    names = constant_names or [f"constant{n}" for n in range(len(captured))]
    all_arguments = [*arguments, *(Argument(name, "constant") for name in names)]
    ids = [*tape.inputs, *captured]
    types = [tensor_type(*tape.shapes[i]) for i in tape.inputs]
    types += [tensor_type(a.shape, a.dtype) for a in captured.values()]
    function = FuncOp(
        "forward",
        FunctionType.from_lists(types, [tensor_type(shape, dtype) for _, shape, dtype in tape.outputs]),
        arg_attrs=ArrayAttr([argument_attributes(n, a.kind, a.name) for n, a in enumerate(all_arguments)]),
        res_attrs=ArrayAttr([gradient_attributes(name) for name in gradients_by]) if gradients_by else None,
    )
    block = function.body.block
    values: dict[str, SSAValue] = {}
    for id_, argument, value in zip(ids, all_arguments, block.args, strict=True):
        if _is_readable(argument.name):
            value.name_hint = argument.name
        values[id_] = value
    for id_, array in scalars.items():
        constant = ConstantOp(_number(array), tensor_type((), array.dtype))
        block.add_op(constant)
        values[id_] = constant.output
    for r in tape.primitives:
        op = PrimitiveOp(
            r["name"],
            [values[name] for name, *_ in r["inputs"]],
            [tensor_type(tuple(shape), dtype) for _, shape, dtype in r["outputs"]],
            r["arguments"],
        )
        block.add_op(op)
        for (name, *_), result in zip(r["outputs"], op.outputs, strict=True):
            values[name] = result
    block.add_op(ReturnOp(*(values[name] for name, *_ in tape.outputs)))
    return ModuleOp([function]), list(captured.values())


def _is_readable(name: str) -> bool:
    """Can xDSL read this name of a value again? It strips a number at the end, to put another one there."""
    return bool(SSAValue.is_valid_name(name)) and name.isascii() and not re.search(r"_\d+_\d+$", name)


def _number(scalar: mx.array) -> float | int | bool:
    value = scalar.item()
    assert isinstance(value, (float, int, bool))
    return value
