"""What runs: kernels in stretches and plain MLX ops between them, in order."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import mlx.core as mx
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Operation, SSAValue

from convjit.backends import Backend, Call, Stretch
from convjit.geometry import Window
from convjit.ir import replay
from convjit.ir.arguments import FunctionArgument, arguments_of
from convjit.ir.attributes import PackedType
from convjit.ir.bodies import YieldOp
from convjit.ir.conv import FusedOp, KernelOp, PackOp, StretchOp
from convjit.ir.mlx import ConstantOp, PrimitiveOp
from convjit.ir.rearrange import ViewOp
from convjit.ir.types import dtype_of, shape_of
from convjit.kernel import AnyKernel, Pack
from convjit.schedule import Schedule

Run = Callable[[list[mx.array]], Sequence[mx.array]]

Packer = Callable[[Window, Schedule], Callable[[mx.array], mx.array]]
"""Makes what packs weights at one place of a program."""


class Step(NamedTuple):
    """One step of a function: it reads and writes values by number; `dead` ones are not needed afterwards."""

    run: Run
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    dead: tuple[int, ...]
    expected: tuple[tuple[tuple[int, ...], mx.Dtype], ...]
    """Shape and dtype of each output of a replayed primitive; empty for a kernel's."""


@dataclass(slots=True)
class Function:
    """A function of the IR, ready to run.

    Attributes:
        arguments: where each argument comes from.
        initial: the values before the first step: room for the arguments, constants, room for results.
        steps: what to do.
        results: the numbers of the values to return.
        shared: which results are arguments or constants that this program owns: each call returns a new handle.
    """

    arguments: list[FunctionArgument]
    initial: list[Any]
    steps: list[Step]
    results: list[int]
    shared: list[bool]
    checked: bool = False

    def __call__(self, arguments: Sequence[mx.array]) -> list[mx.array]:
        values = self.initial.copy()
        values[: len(arguments)] = arguments
        for run, inputs, outputs, dead, expected in self.steps:
            results = run([values[i] for i in inputs])
            if expected and not self.checked:
                _check_replay(results, expected)
            for number, result in zip(outputs, results, strict=True):
                values[number] = result
            for number in dead:
                values[number] = None
        self.checked = True
        return [copy.copy(values[n]) if s else values[n] for n, s in zip(self.results, self.shared, strict=True)]


def _check_replay(results: Sequence[mx.array], expected: Sequence[tuple[tuple[int, ...], mx.Dtype]]) -> None:
    for result, (shape, dtype) in zip(results, expected, strict=True):
        if result.shape != shape or result.dtype != dtype:
            raise replay.UnknownPrimitive(
                f"a replayed primitive gave {result.shape} {result.dtype} where MLX traced {shape} {dtype}"
            )


class OnlyStretch(NamedTuple):
    """The step that is all of a function, and its inputs; a number stands for an array that is not known yet."""

    run: Run
    inputs: list[mx.array | int]


@dataclass(frozen=True, slots=True)
class Program:
    """A captured function: `prepare` runs once a version of the weights, `forward` at every call.

    Attributes:
        prepare: parameters and constants -> folded and packed weights; None if there are none.
        forward: the rest.
        constants: the arrays behind traced arguments of kind "constant".
    """

    prepare: Function | None
    forward: Function
    constants: list[mx.array]

    def prepared(self, traced: Sequence[mx.array]) -> list[mx.array]:
        """Fold and pack: evaluated results of `@prepare` for these traced arguments (inputs are not looked at)."""
        if self.prepare is None:
            return []
        results = self.prepare([traced[a.index] for a in self.prepare.arguments])
        mx.eval(results)
        return results

    def run(self, traced: Sequence[mx.array], prepared: Sequence[mx.array]) -> list[mx.array]:
        """Returns the outputs for the traced arguments (inputs, slots, constants, in that order)."""
        return self.forward(self._arguments(traced, prepared))

    def only_stretch(self, traced: Sequence[mx.array | int], prepared: Sequence[mx.array]) -> OnlyStretch | None:
        """What runs, if all that runs is one step whose results are the outputs; numbers stand for arguments not yet
        known."""
        forward = self.forward
        if len(forward.steps) != 1 or forward.results != list(forward.steps[0].outputs):
            return None
        values = forward.initial.copy()
        values[: len(forward.arguments)] = self._arguments(traced, prepared)
        return OnlyStretch(forward.steps[0].run, [values[n] for n in forward.steps[0].inputs])

    def _arguments(self, traced: Sequence[Any], prepared: Sequence[mx.array]) -> list[Any]:
        return [prepared[a.index] if a.kind == "prepared" else traced[a.index] for a in self.forward.arguments]


def build(module: ModuleOp, backend: Backend, constants: list[mx.array], kernels: dict[KernelOp, AnyKernel]) -> Program:
    """A program from a scheduled module, whose kernels are compiled.

    Args:
        module: `@prepare` and `@forward`.
        backend: what runs its stretches.
        constants: the arrays behind traced arguments of kind "constant".
        kernels: the kernel of every op that is one.

    Raises:
        BackendError: if a kernel cannot be compiled.
        UnknownPrimitive: if a primitive cannot be replayed.
    """
    functions = {op.sym_name.data: op for op in module.body.block.ops if isinstance(op, FuncOp)}
    prepare = functions.get("prepare")
    return Program(
        None if prepare is None else _function(prepare, backend, kernels, _packs_once(backend)),
        _function(functions["forward"], backend, kernels, backend.packer),
        constants,
    )


def _schedule(op: KernelOp) -> Schedule:
    assert op.schedule is not None
    return op.schedule.data


def _packs_once(backend: Backend) -> Packer:
    return lambda window, schedule: partial(backend.pack, window, schedule)


def _function(op: FuncOp, backend: Backend, kernels: dict[KernelOp, AnyKernel], packer: Packer) -> Function:
    block = op.body.block
    numbers: dict[SSAValue, int] = {value: n for n, value in enumerate(block.args)}
    initial: list[Any] = [None] * len(numbers)
    arguments = arguments_of(op)
    prepared: set[SSAValue] = {v for v, a in zip(block.args, arguments, strict=True) if a.kind == "prepared"}
    plan: list[tuple[Operation, Run]] = []
    for inner in block.ops:
        if isinstance(inner, ReturnOp):
            continue
        for result in inner.results:
            numbers[result] = len(initial)
            initial.append(None)
        if isinstance(inner, ConstantOp):
            initial[-1] = mx.array(inner.python_value, dtype_of(inner.output.type))
        else:
            plan.append((inner, _run(inner, backend, kernels, prepared, packer)))
    last = block.last_op
    assert isinstance(last, ReturnOp)
    results = [numbers[v] for v in last.arguments]
    owned = {n for n, a in enumerate(arguments) if a.kind in ("prepared", "constant")}
    owned |= {n for n, value in enumerate(initial) if value is not None}
    last_use = {numbers[v]: position for position, (inner, _) in enumerate(plan) for v in inner.operands}
    steps = [
        Step(
            run,
            tuple(numbers[v] for v in inner.operands),
            tuple(numbers[v] for v in inner.results),
            tuple({numbers[v] for v in inner.operands if last_use[numbers[v]] == position} - {*results, *owned}),
            tuple((shape_of(v.type), dtype_of(v.type)) for v in inner.results)
            if isinstance(inner, PrimitiveOp)
            else (),
        )
        for position, (inner, run) in enumerate(plan)
    ]
    return Function(arguments, initial, steps, results, [n in owned for n in results])


def _run(
    op: Operation, backend: Backend, kernels: dict[KernelOp, AnyKernel], prepared: set[SSAValue], packer: Packer
) -> Run:
    if isinstance(op, PrimitiveOp):
        return _replayed(op)
    if isinstance(op, PackOp):
        pack = packer(op.window.data, op.schedule.data)
        return lambda inputs: [pack(inputs[0])]
    if isinstance(op, StretchOp):
        return _with_views(op, backend.load(_stretch(op, kernels, prepared)))
    raise ValueError(f"{op.name} cannot run: the pipeline left it unscheduled")


def _replayed(op: PrimitiveOp) -> Run:
    name, arguments = op.primitive.data, op.python_arguments
    replay.check(name, arguments)
    call = replay.RULES[name].call
    outputs = [(shape_of(v.type), dtype_of(v.type)) for v in op.outputs]

    def run(inputs: list[mx.array]) -> Sequence[mx.array]:
        result = call(inputs, arguments, outputs)
        return result if isinstance(result, (list, tuple)) else [result]

    return run


def _with_views(op: StretchOp, run: Run) -> Run:
    """`run`, and the axes of views among its results, which share the memory of what they view."""
    results = op.body.block.last_op
    assert isinstance(results, YieldOp)
    views = {n: shape_of(v.type) for n, v in enumerate(results.arguments) if isinstance(v.owner, ViewOp)}
    if not views:
        return run
    return lambda inputs: [mx.reshape(a, views[n]) if n in views else a for n, a in enumerate(run(inputs))]


def _stretch(op: StretchOp, kernels: dict[KernelOp, AnyKernel], prepared: set[SSAValue]) -> Stretch:
    block = op.body.block
    numbers: dict[SSAValue, int] = {value: n for n, value in enumerate(block.args)}
    fresh = itertools.count(len(numbers))
    calls: list[Call] = []
    outputs: tuple[int, ...] = ()
    for inner in block.ops:
        if isinstance(inner, YieldOp):
            outputs = tuple(numbers[v] for v in inner.arguments)
            continue
        if isinstance(inner, ViewOp):
            numbers[inner.result] = numbers[inner.input]
            continue
        for result in inner.results:
            numbers[result] = next(fresh)
        if isinstance(inner, PackOp):
            pack = Pack(inner.window.data, shape_of(inner.weight.type))
            calls.append(Call(pack, inner.schedule.data, (numbers[inner.weight],), (numbers[inner.result],)))
            continue
        assert isinstance(inner, KernelOp)
        assert not isinstance(inner, FusedOp) or isinstance(inner.weight.type, PackedType)
        calls.append(
            Call(
                kernels[inner],
                _schedule(inner),
                tuple(numbers[v] for v in inner.operands),
                tuple(numbers[v] for v in inner.results),
                tuple(shape_of(v.type) for v in inner.results),
                isinstance(inner, FusedOp) and inner.has_own_weights,
            )
        )
    ours = frozenset(number for number, value in enumerate(op.inputs) if value in prepared)
    return Stretch(len(block.args), tuple(calls), outputs, ours)
