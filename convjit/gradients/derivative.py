"""A user's function as one of the arrays that MLX differentiates it by; its values and gradients as two captures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import mlx.core as mx

from convjit.gradients.partition import partition
from convjit.guards.state import Slot
from convjit.tracing import trees
from convjit.tracing.capture import Capture, Pure, Results, constant_names
from convjit.tracing.randomness import random_state
from convjit.tracing.trace import Argument, record
from convjit.tracing.tracers import any_tracer

Arrays = list[mx.array]
Type = tuple[tuple[int, ...], mx.Dtype]


def type_of(array: mx.array) -> Type:
    return array.shape, array.dtype


def _is_differentiable(type_: Type) -> bool:
    return mx.issubdtype(type_[1], mx.inexact)


class Operands(NamedTuple):
    """All arrays that a function reads in one call.

    Attributes:
        first: the arrays among its arguments, the random state if it draws from it, those of traced slots.
        last: those of all other slots.
    """

    first: Arrays
    last: Arrays


class Halves(NamedTuple):
    """Of something forward, and backward."""

    forward: Capture
    backward: Capture


@dataclass(frozen=True, slots=True)
class Derivative:
    """What is known of a function, for one signature, to differentiate it.

    Attributes:
        probed: what a run of it came to; its arrays count for their shapes and dtypes.
        types: of `Operands.first` and of `Operands.last`.
        num_inputs: how many arrays are among its arguments.
        traced, others: the slots that it is differentiated by, and those that it is not.
        by: the numbers, in `Operands.first`, of what it is differentiated by.
        groups: the same in groups of which a gradient often needs only some: the slots, then each argument of the call.
        results: the numbers of its results that can be differentiated.
    """

    probed: Results
    types: tuple[list[Type], list[Type]]
    num_inputs: int
    traced: Sequence[Slot]
    others: Sequence[Slot]
    by: tuple[int, ...]
    groups: tuple[tuple[int, ...], ...]
    results: tuple[int, ...]

    @staticmethod
    def of(pure: Pure, inputs: Sequence[mx.array], traced: Sequence[Slot], others: Sequence[Slot]) -> Derivative:
        """Run a function once, lazily, with other arrays in place of tracers, to see what it does.

        Args:
            pure: the function; its walk has the traced slots first.
            inputs: the arrays among its arguments.
            traced, others: the slots that hold tracers, and those that do not.

        Raises:
            TracerCaptured: if there is a tracer among the results all the same.
            TraceError: as a capture does.
        """
        tracers = [any_tracer([a]) for a in inputs]
        slots, last = ([slot.get() for slot in some] for some in (traced, others))
        probed = pure.probe(inputs)
        state = [random_state()] if probed.draws else []
        types = [type_of(a) for a in (*inputs, *state, *slots)]
        is_traced = [*tracers, *(False for _ in state), *(True for _ in slots)]
        by = tuple(n for n, type_ in enumerate(types) if is_traced[n] and _is_differentiable(type_))
        groups: dict[str, list[int]] = {"": [n for n in by if n >= len(inputs)]}
        for number, argument in enumerate(pure.input_arguments()):
            if number in by:
                groups.setdefault(argument.name.partition(".")[0], []).append(number)
        return Derivative(
            probed,
            (types, [type_of(a) for a in last]),
            len(inputs),
            traced,
            others,
            by,
            tuple(tuple(group) for group in groups.values() if group),
            tuple(n for n, a in enumerate(probed.arrays) if _is_differentiable(type_of(a))),
        )

    @property
    def returned(self) -> tuple[int, ...]:
        """The numbers of those of `results` that the function returns, and does not write into its state."""
        count = len(self.probed.arrays) - len(self.probed.written) - self.probed.draws
        return tuple(n for n in self.results if n < count)

    def with_values(self, operands: Operands, numbers: Sequence[int], values: Sequence[mx.array]) -> Operands:
        """The operands with these values in place of the first ones of these numbers."""
        first = list(operands.first)
        for number, value in zip(numbers, values, strict=True):
            first[number] = value
        return Operands(first, operands.last)

    def run(self, pure: Pure, operands: Operands) -> Arrays:
        """All results of the function."""
        inputs, rest = operands.first[: self.num_inputs], operands.first[self.num_inputs :]
        draws = self.probed.draws
        return pure(inputs, [*rest[draws:], *operands.last], *rest[:draws]).arrays

    def vjp(
        self,
        pure: Pure,
        operands: Operands,
        numbers: Sequence[int],
        used: Sequence[int],
        cotangents: Sequence[mx.array],
    ) -> tuple[Arrays, Arrays]:
        """All results, and the gradients by operands of these numbers from the cotangents of `used` results."""
        results: Arrays = []

        def used_results(*values: mx.array) -> Arrays:
            results[:] = self.run(pure, self.with_values(operands, numbers, values))
            return [results[n] + 0 for n in used]  # MLX drops all but one cotangent of an array that comes twice

        _, gradients = mx.vjp(used_results, [operands.first[n] for n in numbers], list(cotangents))
        return results, gradients

    def captures(self, pure: Pure, used: Sequence[int]) -> Halves:
        """The function; and its gradients, from its operands, the cotangents of `used` results, and what was kept.

        The forward half returns all results, then what the backward half needs of it.

        Raises:
            TraceError: if it cannot be captured.
        """
        first, last = self.types
        cotangents = [type_of(self.probed.arrays[n]) for n in used]
        given = slice(len(first), len(first) + len(cotangents))

        def results_and_gradients(*tracers: mx.array) -> Arrays:
            operands = Operands(list(tracers[: given.start]), list(tracers[given.stop :]))
            results, gradients = self.vjp(pure, operands, self.by, used, tracers[given])
            return [*results, *gradients]

        tape = record(results_and_gradients, [mx.zeros(*type_) for type_ in (*first, *cotangents, *last)])
        halves = partition(tape, tape.inputs[given], len(self.probed.arrays), len(last))
        arguments = [*pure.input_arguments(), *self.probed.state_arguments()]
        arguments += [Argument(slot.path, "input") for slot in self.traced]
        others = self.probed.slot_arguments(self.others)
        late = [Argument(f"cotangent{n}", "input") for n in used]
        late += [Argument(f"kept{n}", "input") for n in range(halves.num_kept)]
        outputs, written, draws = self.probed.outputs, self.probed.written, self.probed.draws
        forward, backward = halves.forward, halves.backward
        names = [constant_names(half, pure.walk) for half in (forward, backward)]
        by = tuple(arguments[n].name for n in self.by)
        return Halves(
            Capture(forward, [*arguments, *others], outputs, written, draws, names[0]),
            Capture(backward, [*arguments, *late, *others], trees.Spec(()), [], False, names[1], by),
        )
