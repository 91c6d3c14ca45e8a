"""`hoist-prepare`: what depends on parameters and constants alone moves into `@prepare`, run once a weight version.

    func.func @forward(%x {mlx.kind = "input"}, %w {mlx.kind = "parameter"}, %s {mlx.kind = "parameter"}) {
      %w2 = mlx.primitive "Multiply"(%w, %s)
      %p = conv.pack %w2 ...
      %y = conv.fused %x, %p ...
->
    func.func @prepare(%w {mlx.kind = "parameter"}, %s {mlx.kind = "parameter"}) {
      %w2 = mlx.primitive "Multiply"(%w, %s)
      %p = conv.pack %w2 ...
      func.return %p
    }
    func.func @forward(%x {mlx.kind = "input"}, %p {mlx.index = 0, mlx.kind = "prepared"}) {
      %y = conv.fused %x, %p ...

Every argument of both functions keeps its attributes (`mlx.index` counts the traced arguments) and its place among
the others; prepared ones follow, with the number of the result of `@prepare` as `mlx.index`. Arguments of kind
"state" are replaced by the program itself, so nothing that reads them moves. A value much larger than the parameters
it comes from, such as a bias broadcast to an activation's shape, is computed in `@forward` rather than stored; one
that both functions need is computed in both. The pass runs once: `@prepare` is not made anew, nor another beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, FunctionType, ModuleOp, StringAttr
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import BlockArgument, Operation, SSAValue
from xdsl.passes import ModulePass

from convjit.errors import PipelineError
from convjit.ir.arguments import argument_attributes
from convjit.passes.values import erase_dead_ops, forward_of, prepared_values, static_values


def _crossing(function: FuncOp, static: set[SSAValue]) -> tuple[list[SSAValue], set[Operation]]:
    """The values to prepare, and the ops on parameters that `@forward` computes by itself."""
    prepared = prepared_values(function, static)
    crossing: dict[SSAValue, None] = {}
    stays: set[Operation] = set()
    for op in reversed(list(function.body.block.ops)):
        if op.results and op not in stays and all(r in static for r in op.results):
            continue
        for value in reversed(op.operands):
            if value not in static or isinstance(value, BlockArgument) or value in crossing:
                continue
            assert isinstance(value.owner, Operation)
            if value in prepared:
                crossing[value] = None
            else:
                stays.add(value.owner)
    return list(reversed(crossing)), stays


def _needed(function: FuncOp, crossing: list[SSAValue]) -> list[Operation]:
    """The ops that `crossing` is made by, in program order."""
    needed = {v.owner for v in crossing}
    for op in reversed(list(function.body.block.ops)):
        if op in needed:
            needed.update(v.owner for v in op.operands)
    return [op for op in function.body.block.ops if op in needed]


def _move(function: FuncOp, crossing: list[SSAValue], stays: set[Operation]) -> FuncOp:
    """Build `@prepare`, which returns `crossing`, and make `function` read those as arguments."""
    ops = _needed(function, crossing)
    read = {v for op in ops for v in op.operands}
    arguments = [a for a in function.body.block.args if a in read]
    assert function.arg_attrs is not None
    prepare = FuncOp(
        "prepare",
        FunctionType.from_lists([a.type for a in arguments], [v.type for v in crossing]),
        arg_attrs=ArrayAttr([function.arg_attrs.data[a.index] for a in arguments]),
    )
    body = prepare.body.block
    inner: dict[SSAValue, SSAValue] = dict(zip(arguments, body.args, strict=True))
    for old, new in inner.items():
        new.name_hint = old.name_hint
    for op in ops:
        body.add_op(op.clone(inner) if op in stays else _with_operands(op, inner))
    body.add_op(ReturnOp(*(inner.get(v, v) for v in crossing)))
    forward = function.body.block
    for value in crossing:
        argument = forward.insert_arg(value.type, len(forward.args))
        argument.name_hint = value.name_hint
        value.replace_uses_with_if(argument, lambda use: use.operation.parent_block() is not body)
    return prepare


def _with_operands(op: Operation, inner: dict[SSAValue, SSAValue]) -> Operation:
    """`op`, taken out of its block, reading these values in place of others."""
    op.detach()
    for index, value in enumerate(op.operands):
        if value in inner:
            op.operands[index] = inner[value]
    return op


def _drop_unused_arguments(function: FuncOp, prepared: int) -> None:
    """Forget parameters that only `@prepare` reads, and write the arguments' attributes."""
    block = function.body.block
    assert function.arg_attrs is not None
    attributes = list(function.arg_attrs.data)
    attributes += [argument_attributes(n, "prepared") for n in range(prepared)]
    kept: list[DictionaryAttr] = []
    for argument, attribute in reversed([*zip(block.args, attributes, strict=True)]):  # erasing moves those behind
        if attribute.data["mlx.kind"] != StringAttr("input") and not argument.uses:
            block.erase_arg(argument)
        else:
            kept.append(attribute)
    function.properties["arg_attrs"] = ArrayAttr(kept[::-1])
    function.properties["function_type"] = FunctionType.from_lists(
        [a.type for a in block.args], list(function.function_type.outputs)
    )


@dataclass(frozen=True)
class HoistPreparePass(ModulePass):
    """See the module's docstring."""

    name = "hoist-prepare"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in forward_of(op):
            if function.arg_attrs is None:
                continue
            erase_dead_ops(function.body.block)
            crossing, stays = _crossing(function, static_values(function))
            if crossing:
                if any(isinstance(o, FuncOp) and o.sym_name.data == "prepare" for o in op.body.block.ops):
                    raise PipelineError(f"{self.name} has made @prepare before; every pipeline ends with it by itself")
                op.body.block.insert_op_before(_move(function, crossing, stays), function)
            _drop_unused_arguments(function, len(crossing))
