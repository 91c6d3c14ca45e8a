"""The steps of a compiled network: how many there are, and how long each takes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Operation, Region
from xdsl.rewriter import InsertPoint, Rewriter

import convjit
from convjit.emit.region import kernel_of, other_kernel_of
from convjit.execution.entry import Entry
from convjit.execution.program import Function, build
from convjit.ir.bodies import YieldOp
from convjit.ir.conv import ConvolutionOp, KernelOp, StretchOp, name_of
from convjit.ir.mlx import ConstantOp, PrimitiveOp
from convjit.ir.types import shape_of


@dataclass(frozen=True, slots=True)
class Step:
    """A kernel, or a plain MLX op.

    Attributes:
        kind: "kernel", or the primitive's name.
        what: its shapes, in words.
        layer: of a kernel.
        flops: of a kernel's convolution.
        seconds: its median time.
    """

    kind: str
    what: str
    layer: str
    flops: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Counts:
    """How many steps a compiled network has."""

    kernels: int
    plain: int


def counts(fast: Any) -> Counts:
    """Of the signature that was called last."""
    found = list(_forward(fast._last).walk())
    return Counts(sum(isinstance(op, KernelOp) for op in found), sum(isinstance(op, PrimitiveOp) for op in found))


def profiled(call: Callable[[mx.array], mx.array], x: mx.array, rounds: int) -> list[Step]:
    """Compile a network, and time each of its kernels and plain MLX ops by itself.

    The compiled network is a little faster: it calls kernels that follow each other at once, and evaluates plain MLX
    ops when a kernel needs them.
    """
    fast = convjit.compile(call, backend="cpu", fallback="error")
    expected = fast(x)
    entry: Entry = fast._last
    assert entry.lowered is not None and entry.backend is not None
    forward = _forward(entry)
    _set_apart(forward)
    ops = [op for op in forward.body.block.ops if not isinstance(op, ReturnOp | ConstantOp)]
    lowered = entry.lowered
    program = build(lowered.module, entry.backend, lowered.constants, lowered.all_kernels())
    seconds = _watched(program.forward)
    for _ in range(rounds + 1):
        (result,) = entry.results(program, [x])
        assert mx.array_equal(result, expected)
    return [_step(op, statistics.median(found[1:])) for op, found in zip(ops, seconds, strict=True)]


def _forward(entry: Entry) -> FuncOp:
    assert entry.lowered is not None
    module: ModuleOp = entry.lowered.module
    return next(op for op in module.body.block.ops if isinstance(op, FuncOp) and op.sym_name.data == "forward")


def _set_apart(function: FuncOp) -> None:
    """Make each kernel a stretch of its own."""
    for stretch in [op for op in function.body.block.ops if isinstance(op, StretchOp)]:
        values = dict(zip(stretch.body.block.args, stretch.inputs, strict=True))
        for op in list(stretch.body.block.ops):
            inputs = [values[v] for v in op.operands]
            if isinstance(op, YieldOp):
                Rewriter.replace_op(stretch, [], inputs)
                continue
            op.detach()
            body = Block([op], arg_types=[v.type for v in inputs])
            op.operands = body.args
            body.add_op(YieldOp(*op.results))
            alone = StretchOp(inputs, Region(body), [v.type for v in op.results])
            Rewriter.insert_op(alone, InsertPoint.before(stretch))
            values |= zip(op.results, alone.outputs, strict=True)


def _watched(function: Function) -> list[list[float]]:
    """Seconds of each step, filled by every call from now on."""
    seconds: list[list[float]] = [[] for _ in function.steps]

    def watched(run: Callable[[list[mx.array]], Sequence[mx.array]], found: list[float]) -> Callable:
        def call(inputs: list[mx.array]) -> Sequence[mx.array]:
            start = time.perf_counter()
            results = run(inputs)
            mx.eval(results)
            found.append(time.perf_counter() - start)
            return results

        return call

    function.steps = [s._replace(run=watched(s.run, found)) for s, found in zip(function.steps, seconds, strict=True)]
    return seconds


def _step(op: Operation, seconds: float) -> Step:
    if isinstance(op, PrimitiveOp):
        return Step(op.primitive.data, f"{_shapes(op.operands)} -> {_shapes(op.results)}", "", 0, seconds)
    kernel = op.regions[0].block.first_op
    assert isinstance(kernel, KernelOp)
    flops = kernel.geometry.flops if isinstance(kernel, ConvolutionOp) else 0
    return Step(kernel.name, _in_words(kernel), name_of(kernel), flops, seconds)


def _in_words(kernel: KernelOp) -> str:
    return (kernel_of(kernel) if isinstance(kernel, ConvolutionOp) else other_kernel_of(kernel)).in_words()


def _shapes(values: Sequence[Any]) -> str:
    return " ".join("x".join(map(str, shape_of(v.type))) or "()" for v in values)
