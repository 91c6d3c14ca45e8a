"""Which elementwise ops and sums of channels become one kernel: what `fuse-elementwise` builds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

from xdsl.dialects.builtin import i1
from xdsl.ir import Block, Operation, SSAValue

from convjit.ir.conv import GeneralOp, KernelOp
from convjit.ir.mlx import SUM, PrimitiveOp, is_primitive
from convjit.ir.types import element_type, shape_of, without_leading_ones
from convjit.passes.elementwise import FLOAT_TYPES, is_elementwise
from convjit.passes.values import constant_of, phases_of, users

MOST_OPS = 64
"""In a kernel, predicates not counted: bounds its text and the values that it keeps in registers."""

_VIEWS = ("ExpandDims", "Squeeze", "Reshape", "Flatten", "Unflatten")
_BROADCASTS = ("Broadcast", "Full")

Shape = tuple[int, ...]


def extents_of(value: SSAValue) -> Shape:
    """A shape, whatever extents of 1 it begins with."""
    return without_leading_ones(shape_of(value.type))


def source_of(value: SSAValue) -> SSAValue:
    """The value that broadcasts to `value` as it is: what is behind ops that repeat it, or add or drop extents of 1."""
    extents = extents_of(value)
    axes = [axis for axis, extent in enumerate(extents) if extent != 1]
    source = value
    while isinstance(op := value.owner, PrimitiveOp) and op.operands:
        given, wanted = shape_of(op.operands[0].type), shape_of(value.type)
        if is_primitive(op, *_BROADCASTS):
            kept = [axis for axis, extent in enumerate(wanted) if extent != 1]
            place = dict(zip(kept, axes, strict=True))
            shift = len(wanted) - len(given)
            axes = [place[axis + shift] for axis, extent in enumerate(given) if extent != 1]
        elif not is_primitive(op, *_VIEWS) or [e for e in given if e != 1] != [e for e in wanted if e != 1]:
            break
        value = op.operands[0]
        own = extents_of(value)
        if [len(extents) - len(own) + axis for axis, extent in enumerate(own) if extent != 1] == axes:
            source = value
    return source


def is_sum_of_channels(op: Operation) -> bool:
    """Is it a sum over all axes but the last?"""
    if not is_primitive(op, "Reduce"):
        return False
    kind, axes = op.python_arguments
    shape = shape_of(op.operands[0].type)
    return (
        kind == SUM
        and prod(shape[:-1]) > 1
        and all(axis in axes or shape[axis] == 1 for axis in range(len(shape) - 1))
        and len(shape) - 1 not in axes
        and element_type(op.results[0]) == element_type(op.operands[0])
        and element_type(op.operands[0]) in FLOAT_TYPES
    )


def shapes_of_candidates(block: Block, static: set[SSAValue]) -> dict[Operation, Shape]:
    """The ops that a kernel can take, and what each runs over. Predicates are only taken with what reads them.

    Args:
        static: values whose ops are left out.
    """
    found: dict[Operation, Shape] = {}
    for op in block.ops:
        if static.isdisjoint(op.results) and (shape := _shape_of(op)) is not None:
            found[op] = shape
    while lost := [op for op, shape in found.items() if not _keeps_predicates_inside(op, shape, found)]:
        for op in lost:
            del found[op]
    return found


def _shape_of(op: Operation) -> Shape | None:
    if is_sum_of_channels(op):
        shape = extents_of(op.operands[0])
    elif is_elementwise(op):
        shape = extents_of(op.results[0])
    else:
        return None
    return shape if prod(shape) > 1 else None


def _keeps_predicates_inside(op: Operation, shape: Shape, found: dict[Operation, Shape]) -> bool:
    for value in op.operands:
        if element_type(value) == i1 and constant_of(value) is None:
            maker = value.owner
            if not isinstance(maker, Operation) or found.get(maker) != shape:
                return False
    if not _is_predicate(op):
        return True
    return all(found.get(user) == shape for user in users(op.results[0]))


@dataclass(slots=True)
class _Unit:
    """Ops that run together: a cluster, or any other op by itself. Sets of ops are the bits of their numbers.

    Attributes:
        members: its ops.
        reached: the ops that depend on them.
        waiting: the ops that read their sums, which are there when all elements are done.
        shape: what a cluster runs over.
        phase: how many stretches must be over before it can run.
        successors: the numbers of the units that read its results.
    """

    members: int
    reached: int
    waiting: int
    shape: Shape | None
    phase: int
    successors: set[int] = field(default_factory=set[int])


class Clusters:
    """Grows clusters from the last op to the first, each convex: no way leaves one and comes back.

    An op joins the clusters of the ops that read its result, and makes them one; clusters that read the same value of
    their own shape become one, too. Nothing is put off by that: what joins runs in the same phase.
    """

    def __init__(self, block: Block, shapes: dict[Operation, Shape]):
        self._ops = [op for op in block.ops if op is not block.last_op]
        self._numbers = {op: n for n, op in enumerate(self._ops)}
        self._unit = list(range(len(self._ops)))
        self._units: dict[int, _Unit] = {}
        self._shapes = shapes
        self._predicates = sum(1 << n for op, n in self._numbers.items() if op in shapes and _is_predicate(op))
        read = {op: sources(op) if op in shapes else list(op.operands) for op in self._ops}
        self._phases = phases_of(read, lambda op: op in shapes or _is_kernel(op))  # if all candidates were kernels
        readers: dict[SSAValue, list[int]] = {}
        for op, values in read.items():
            for value in dict.fromkeys(values):
                readers.setdefault(value, []).append(self._numbers[op])
        for number in reversed(range(len(self._ops))):
            self._add(number, readers)
        for argument in block.args:
            self._merge_readers(argument, readers.get(argument, []))

    def found(self) -> list[list[Operation]]:
        """The ops of each cluster, in program order."""
        clusters: dict[int, list[Operation]] = {}
        for number, op in enumerate(self._ops):
            if op in self._shapes:
                clusters.setdefault(self._unit[number], []).append(op)
        return list(clusters.values())

    def _add(self, number: int, readers: dict[SSAValue, list[int]]) -> None:
        op = self._ops[number]
        reading = [reader for result in op.results for reader in readers.get(result, [])]
        waiting = sum(1 << reader for reader in reading) if is_sum_of_channels(op) else 0
        unit = _Unit(1 << number, 0, waiting, self._shapes.get(op), self._phases[op], {self._unit[r] for r in reading})
        for other in unit.successors:
            unit.reached |= self._units[other].members | self._units[other].reached
        self._units[number] = unit
        for result in op.results:
            self._merge_readers(result, readers.get(result, []))
        if unit.shape is None or is_sum_of_channels(op):
            return
        unit.phase = min((self._latest_phase_for(self._ops[reader]) for reader in reading), default=unit.phase)
        for reader in reading:
            self._merge(self._unit[number], self._unit[reader])

    def _latest_phase_for(self, reader: Operation) -> int:
        """In which an op must run so that `reader` does not have to wait."""
        if reader in self._shapes:
            return self._units[self._unit[self._numbers[reader]]].phase
        return self._phases[reader] - (not _is_kernel(reader))

    def _merge_readers(self, value: SSAValue, readers: Sequence[int]) -> None:
        """Clusters that read all of one value are one."""
        shape = extents_of(value)
        first: int | None = None
        for reader in readers:
            if self._units[self._unit[reader]].shape == shape:
                if first is None:
                    first = reader
                self._merge(self._unit[first], self._unit[reader])

    def _merge(self, first: int, second: int) -> None:
        a, b = self._units[first], self._units[second]
        if first == second or a.shape is None or a.shape != b.shape or a.phase != b.phase:
            return
        members = (a.members | b.members) & ~self._predicates  # those are with what reads them, in any case
        if members.bit_count() > MOST_OPS or self._meets(a, b) or self._meets(b, a):
            return
        a.members |= b.members
        a.waiting |= b.waiting
        a.reached = (a.reached | b.reached) & ~a.members
        a.successors = {s for s in a.successors | b.successors if s not in (first, second)}
        for number, unit in enumerate(self._unit):
            if unit == second:
                self._unit[number] = first
        del self._units[second]
        behind = a.members | a.reached
        for unit in self._units.values():
            if unit.reached & a.members:
                unit.reached |= behind & ~unit.members
            if second in unit.successors:
                unit.successors.remove(second)
                unit.successors.add(first)

    def _meets(self, a: _Unit, b: _Unit) -> bool:
        """Does `b` wait for the whole of `a`, or is there a way to it through something else?"""
        if a.waiting & b.members or not a.reached & b.members:
            return bool(a.waiting & b.members)
        others = (self._units[s] for s in a.successors)
        return any(other is not b and other.reached & b.members for other in others)


def sources(op: Operation) -> list[SSAValue]:
    """What a kernel reads for `op`: its operands but constants, through ops that broadcast them."""
    if is_sum_of_channels(op):
        return list(op.operands)
    return [source_of(value) for value in op.operands if constant_of(value) is None]


def _is_predicate(op: Operation) -> bool:
    return element_type(op.results[0]) == i1


def _is_kernel(op: Operation) -> bool:
    return isinstance(op, (GeneralOp, KernelOp))
