"""The maximal elementwise DAG behind a convolution or a norm: what `fuse-epilogue` takes into the kernel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from xdsl.ir import Operation, SSAValue

from convjit.ir.conv import GeneralOp
from convjit.ir.mlx import PrimitiveOp
from convjit.ir.norm import NormOp
from convjit.ir.types import element_type, shape_of
from convjit.passes.elementwise import FLOAT_TYPES, is_elementwise
from convjit.passes.masks import mask_of
from convjit.passes.values import constant_of, source_of_broadcast, users

Root = GeneralOp | NormOp
"""What has an epilogue."""


@dataclass(slots=True)
class Dag:
    """The elementwise ops that join a root.

    Attributes:
        ops: in program order.
        extras: what they read besides each other, the root and constants: the narrow values behind broadcasts.
        moved: ops between the root and the last of `ops` that depend on it but do not join, in program order.
    """

    root: Root
    ops: list[PrimitiveOp] = field(default_factory=list[PrimitiveOp])
    extras: list[SSAValue] = field(default_factory=list[SSAValue])
    moved: list[Operation] = field(default_factory=list[Operation])

    def results(self) -> list[SSAValue]:
        """The values of the DAG that are needed outside, in program order."""
        inside: set[Operation] = set(self.ops)
        values = [self.root.results[0], *(op.results[0] for op in self.ops)]
        return [v for v in values if not v.uses or any(user not in inside for user in users(v))]


def maximal_dag(root: Root, max_extras: int, max_results: int) -> Dag:
    """The largest DAG that reads at most `max_extras` values and whose results are floats, at most `max_results`.

    Masks that only it reads are part of it: it reads what they are made from.
    """
    blocked: set[Operation] = set()
    dependents = _Dependents(root)
    while True:
        dag = _grow(root, max_extras, blocked, dependents)
        results = set(dag.results())
        predicates = [
            op for op in dag.ops if op.results[0] in results and element_type(op.results[0]) not in FLOAT_TYPES
        ]
        if predicates:
            blocked.add(predicates[0])
        elif len(results) > max_results and dag.ops:
            blocked.update(dag.ops[_most_ops(dag, max_results) :])
        else:
            return dag


def _most_ops(dag: Dag, max_results: int) -> int:
    """How many of its ops, the first ones, have at most so many results; fewer than all."""
    numbers: dict[Operation, int] = {op: number for number, op in enumerate(dag.ops)}
    beyond = len(dag.ops)
    counts = [0] * beyond  # of results, for each number of ops
    for made, value in enumerate([dag.root.results[0], *(op.results[0] for op in dag.ops)]):
        last = max((numbers.get(user, beyond) for user in users(value)), default=beyond)
        for number in range(made, min(last + 1, beyond)):
            counts[number] += 1
    return max(number for number, count in enumerate(counts) if count <= max_results)


class _Dependents:
    """The ops behind a root that depend on it, in program order; looked for as far as somebody iterates."""

    def __init__(self, root: Root):
        self._found: dict[Operation, None] = {root: None}
        self._next = root.next_op

    def __contains__(self, op: object) -> bool:
        """Does `op` depend on it, or is it the root? Known of all ops up to where an iteration is."""
        return op in self._found

    def __iter__(self) -> Iterator[Operation]:
        yield from list(self._found)[1:]
        while (op := self._next) is not None:
            self._next = op.next_op
            if any(operand.owner in self._found for operand in op.operands):
                self._found[op] = None
                yield op


def _grow(root: Root, max_extras: int, blocked: set[Operation], dependents: _Dependents) -> Dag:
    dag = Dag(root)
    inside: set[SSAValue] = {root.results[0]}
    pending: list[Operation] = []
    ahead = users(root.results[0])
    for op in dependents if ahead else ():
        extras = _extras_if_it_joins(op, inside, dependents, dag) if op in ahead and op not in blocked else None
        ahead.discard(op)
        if extras is None or len(dag.extras) + len(extras) > max_extras:
            pending.append(op)
        else:
            assert isinstance(op, PrimitiveOp)
            dag.ops += [made for v in op.operands if (mask := mask_of(v)) and v not in inside for made in mask.ops]
            dag.ops.append(op)
            dag.extras += extras
            inside.add(op.results[0])
            ahead |= users(op.results[0])
            dag.moved += pending
            pending = []
        if not ahead:
            break
    return dag


def _extras_if_it_joins(
    op: Operation, inside: set[SSAValue], dependents: _Dependents, dag: Dag
) -> list[SSAValue] | None:
    """The values that joining `op` would add to the extras, or None if it cannot join."""
    if not is_elementwise(op) or any(v.owner in dependents and v not in inside for v in op.operands):
        return None
    if shape_of(op.results[0].type) != shape_of(dag.root.results[0].type):
        return None
    extras: list[SSAValue] = []
    for operand in op.operands:
        if operand in inside or constant_of(operand) is not None:
            continue
        mask = mask_of(operand)
        source = mask.source if mask else source_of_broadcast(operand)
        if element_type(source) not in FLOAT_TYPES:
            return None
        if source not in dag.extras and source not in extras:
            extras.append(source)
    return extras
