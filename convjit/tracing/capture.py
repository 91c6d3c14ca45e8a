"""One call of a user's function -> a tape: run it once lazily, then trace it, both on copies of its state.

Nothing the caller owns is touched: modules, containers and closures are cloned (`clone.Clone`), tracers go into the
clone's slots, and what the function wrote there comes back as extra outputs.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from convjit.errors import RecordWritten, TraceError
from convjit.guards.guard import argument_paths, parameter_names, read_arguments
from convjit.guards.state import Slot, child_path, follow_records, holds_state
from convjit.guards.walk import Walk
from convjit.guards.words import data_pointer, descriptor
from convjit.tracing import trees
from convjit.tracing.checked import NameOf, checked_convolutions
from convjit.tracing.clone import Clone, restore
from convjit.tracing.randomness import random_state, random_state_kept, set_random_state
from convjit.tracing.trace import Argument, Tape, record
from convjit.tracing.tracers import any_tracer, capture_in_progress


class TracerCaptured(Exception):
    """The function reads a tracer that is neither an argument nor in a module: plain MLX must run, now."""


@dataclass(frozen=True, slots=True)
class Capture:
    """A function as traced with one signature.

    Attributes:
        tape: what MLX's tracer reported; its inputs are the call's arrays, the random state if the function draws from
            it, then the slots' arrays.
        arguments: a name and a kind for each of those.
        outputs: the structure of the result.
        written: the live slots that the trailing outputs go to.
        draws: does the function draw from MLX's random state? Its last output is the new state, then.
        constant_names: a name for each larger array that the function captured.
        gradients_by: where the outputs are gradients, the names of the arguments that they are by.
    """

    tape: Tape
    arguments: list[Argument]
    outputs: trees.Spec
    written: list[Slot]
    draws: bool
    constant_names: list[str]
    gradients_by: tuple[str, ...] = ()


def capture(pure: Pure, inputs: Sequence[mx.array], *, draws: bool) -> Capture:
    """Trace a function for one call.

    Args:
        pure: the function; the arrays that it reads from outside are evaluated.
        inputs: the arrays among the arguments, in the order of `guard.read_arguments`.
        draws: does it draw from MLX's random state?

    Raises:
        TraceError: if the function cannot be captured; the message says why.
    """
    slots = [slot.get() for slot in pure.walk.slots]
    state = [random_state()] if draws else []
    runs: list[Results] = []

    def on_tracers(*tracers: mx.array) -> list[mx.array]:
        rest = tracers[len(inputs) :]
        runs.append(pure(tracers[: len(inputs)], rest[len(state) :], *rest[: len(state)]))
        return runs[-1].arrays

    # MLX refuses to trace a function that captures one of its inputs: new arrays stand for them.
    tape = record(on_tracers, [mx.zeros(a.shape, a.dtype) for a in (*inputs, *state, *slots)])
    traced = runs[-1]
    arguments = [*pure.input_arguments(), *traced.state_arguments(), *traced.slot_arguments(pure.walk.slots)]
    return Capture(tape, arguments, traced.outputs, traced.written, draws, constant_names(tape, pure.walk))


@dataclass(frozen=True, slots=True)
class Results:
    """What a run of a function came to.

    Attributes:
        arrays: those of its result, those that it wrote into its state, the new random state if it draws from it.
        outputs: the structure of its result.
        written: the live slots that it wrote.
        draws: does it draw from MLX's random state?
    """

    arrays: list[mx.array]
    outputs: trees.Spec
    written: list[Slot]
    draws: bool

    def state_arguments(self) -> list[Argument]:
        return [Argument("mx.random.state", "state")] if self.draws else []

    def slot_arguments(self, slots: Sequence[Slot]) -> list[Argument]:
        state = {(id(s.container), s.key) for s in self.written}
        return [Argument(s.path, "state" if (id(s.container), s.key) in state else "parameter") for s in slots]


@dataclass(frozen=True, slots=True)
class Pure:
    """A call of a user's function as a pure function of all arrays that it reads; run on a copy of its state.

    Attributes:
        function, args, kwargs: the call; other arrays take the place of those among its arguments.
        walk: all that the function reads besides them.
        convolutions: what to enter meanwhile, to see its calls of `mx.conv*`.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    walk: Walk
    convolutions: Callable[[NameOf], AbstractContextManager[None]] = checked_convolutions

    def __call__(self, inputs: Sequence[mx.array], slots: Sequence[mx.array], key: mx.array | None = None) -> Results:
        """Run it.

        Args:
            inputs: the arrays among its arguments, in the order of `guard.read_arguments`.
            slots: one for each of `walk.slots`.
            key: the random state; by default MLX's.

        Raises:
            TraceError: if it does what a trace would not repeat at every call.
        """
        if self.walk.obstacle:
            raise TraceError(self.walk.obstacle)
        with capture_in_progress(), random_state_kept():
            if key is not None:
                set_random_state(key)
            before = random_state()
            session = _Session(self, inputs, slots)
            arrays, outputs = trees.flatten(session.run(), session.found)
            session.refuse_in_place_writes()
            written = session.written()
            if not arrays and not written:
                raise TraceError("it returns no arrays")
            draws = random_state() is not before
            state = [*(array for _, array in written), *([random_state()] if draws else [])]
            return Results([*arrays, *state], outputs, [slot for slot, _ in written], draws)

    def probe(self, inputs: Sequence[mx.array]) -> Results:
        """Run it once, lazily, with copies of the arrays that it reads, and zeros in place of tracers.

        Raises:
            TracerCaptured: if a result is a tracer although no argument is.
            TraceError: as a call does.
        """
        probed = self([*map(_stand_in, inputs)], [_stand_in(slot.get()) for slot in self.walk.slots])
        if any_tracer(probed.arrays):
            raise TracerCaptured
        return probed

    def input_arguments(self) -> list[Argument]:
        names, _ = argument_paths(self.args, self.kwargs, parameter_names(self.function))
        return [Argument(name, "input") for name in names]


def _stand_in(array: mx.array) -> mx.array:
    return mx.zeros(array.shape, array.dtype) if any_tracer([array]) else copy.copy(array)


def constant_names(tape: Tape, walk: Walk) -> list[str]:
    """A name for each larger array that the function captured."""
    captured = {data_pointer(array): name for name, array in walk.captured}
    frozen = tape.frozen().values()
    return [captured.get(data_pointer(a), f"constant{n}") for n, a in enumerate(frozen)]


class _Session:
    """One run of the function on a clone of its state."""

    def __init__(self, pure: Pure, inputs: Sequence[mx.array], slots: Sequence[mx.array]):
        self._walk, self._convolutions = pure.walk, pure.convolutions
        self._handles: dict[int, mx.array] = {}
        self._inputs = iter(inputs)
        self._narrowed = {id(attributes) for attributes, _ in pure.walk.read}
        self._placed = {(id(s.container), s.key): a for s, a in zip(pure.walk.slots, slots, strict=True)}
        self._clone = Clone(self._replacement)
        self._function = self._clone.follow(pure.function)
        self._args = tuple(map(self._argument, pure.args))
        self._kwargs = {name: self._argument(pure.kwargs[name]) for name in sorted(pure.kwargs)}
        self._before = read_arguments(self._args, self._kwargs)
        writable = [*inputs, *slots, *self._handles.values()]
        self._words = [(array, descriptor(array)) for array in writable]

    def run(self) -> Any:
        live = [(array, copy.copy(array), descriptor(array)) for _, array in self._walk.captured]
        shared = [(container, copy.copy(container)) for container in self._walk.shared]
        self._clone.expose(self._walk.uncopied)
        try:
            with (
                self._convolutions(lambda module: self._walk.path_of(self._clone.original(module))),
                self._walk.reads.noted(self._walk.noted, self._clone.original, self._walk.closed),
            ):
                result = self._function(*self._args, **self._kwargs)
        finally:
            self._clone.cover()
            restored = [*_restored_arrays(live), *_restored_containers(shared)]
        if restored:
            raise TraceError("it writes into an array or a list that it does not hold; make it an attribute")
        return result

    def found(self, value: Any) -> bool:
        """Did the run find this object, rather than make it?"""
        return self._clone.original(value) is not None or self._walk.has(value)

    def _replacement(self, container: Any, key: Any, array: mx.array) -> mx.array:
        placed = self._placed.get((id(container), key))
        if placed is not None:
            return placed
        if id(container) in self._narrowed:  # nothing reads it, but if the same array is put there, that is a write
            return copy.copy(array)
        # Otherwise a new handle of the live array, so that a write in place does not reach the user's.
        return self._handles.setdefault(id(array), copy.copy(array))

    def _argument(self, value: Any) -> Any:
        return trees.replaced(value, lambda _: next(self._inputs), self._clone.follow)

    def refuse_in_place_writes(self) -> None:
        if any(descriptor(array) != word for array, word in self._words):
            raise TraceError(
                "it writes in place into an array that it did not make (x[...] = or x += on an argument, a parameter "
                "or a captured array); work on a copy, such as `x = x + 0`"
            )

    def written(self) -> list[tuple[Slot, mx.array]]:
        """What the run wrote into its state: live slots and their new arrays."""
        before, after = self._before, read_arguments(self._args, self._kwargs)
        if after.key != before.key or any(map(operator.is_not, after.arrays, before.arrays)):
            if before.records:
                follow_records(before.records)
                raise RecordWritten
            raise TraceError("it changes a list or dict among its arguments; return the new values instead")
        path_of = self._walk.path_of
        live = {(id(s.container), s.key): s for s in self._walk.slots}
        return [
            (live.get((id(container), key)) or Slot(container, key, child_path(path_of(container), key)), array)
            for container, key, array in self._clone.written(path_of)
        ]


def _restored_arrays(live: list[tuple[mx.array, mx.array, int]]) -> Iterator[mx.array]:
    """Undo writes into live arrays that no copy could stand for; yields those."""
    for array, held, word in live:
        if descriptor(array) != word:
            array[...] = held
            yield array


def _restored_containers(shared: list[tuple[Any, Any]]) -> Iterator[Any]:
    """Take what a run put into live lists and dicts out again, if there is an array in it; yields those."""
    for container, before in shared:
        if holds_state(container):
            restore(container, before)
            yield container
