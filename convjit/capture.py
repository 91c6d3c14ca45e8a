"""One call of a user's function -> a tape: run it once lazily, then trace it, both on copies of its state.

Nothing the caller owns is touched: modules, containers and closures are cloned (`state.Clone`), tracers go into the
clone's slots, and what the function wrote there comes back as extra outputs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from convjit import trees
from convjit.checked import checked_convolutions
from convjit.errors import TraceError
from convjit.guard import any_tracer, argument_paths, data_pointer, descriptor, parameter_names
from convjit.state import Clone, Slot, Walk, is_stateful_object
from convjit.trace import Argument, Tape, record

_thread = threading.local()


def capturing() -> bool:
    """Is this thread inside a capture? Compiled functions run plain there, so that the outermost one sees it all."""
    return getattr(_thread, "depth", 0) > 0


@contextmanager
def _capture_in_progress() -> Generator[None]:
    _thread.depth = getattr(_thread, "depth", 0) + 1
    try:
        yield
    finally:
        _thread.depth -= 1


class TracerCaptured(Exception):
    """The function reads a tracer that is neither an argument nor in a module: plain MLX must run, now."""


@dataclass(frozen=True, slots=True)
class Capture:
    """A function as traced with one signature.

    Attributes:
        tape: what MLX's tracer reported; its inputs are the call's arrays, then the slots' arrays.
        arguments: a name and a kind for each of those.
        outputs: the structure of the result.
        written: the live slots that the trailing outputs go to.
        constant_names: a name for each larger array that the function captured.
    """

    tape: Tape
    arguments: list[Argument]
    outputs: trees.Spec
    written: list[Slot]
    constant_names: list[str]


def capture(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], walk: Walk, inputs: Sequence[mx.array]
) -> Capture:
    """Capture `function` for these arguments.

    Args:
        function: the user's callable.
        args, kwargs: the arguments of the call.
        walk: all that the function reads besides them; its slots' arrays are evaluated.
        inputs: the arrays among the arguments, in the order of `guard.read_arguments`.

    Raises:
        TracerCaptured: if a result is a tracer although no argument is.
        TraceError: if the function cannot be captured; the message says why.
    """
    _probe(function, args, kwargs, walk)
    result: dict[str, Any] = {}

    def on_tracers(*tracers: mx.array) -> list[mx.array]:
        session = _Session(function, args, kwargs, walk, tracers[: len(inputs)], tracers[len(inputs) :])
        arrays, outputs = trees.flatten(session.run())
        session.refuse_in_place_writes(tracers)
        written = session.written()
        if not arrays and not written:
            raise TraceError("it returns no arrays")
        result.update(outputs=outputs, written=[slot for slot, _ in written])
        return arrays + [array for _, array in written]

    with _capture_in_progress():
        tape = record(on_tracers, [*inputs, *(s.get() for s in walk.slots)])
    names, _ = argument_paths(args, kwargs, parameter_names(function))
    state = {(id(s.container), s.key) for s in result["written"]}
    arguments = [Argument(name, "input") for name in names] + [
        Argument(s.path, "state" if (id(s.container), s.key) in state else "parameter") for s in walk.slots
    ]
    return Capture(tape, arguments, result["outputs"], result["written"], _constant_names(tape, walk))


def _constant_names(tape: Tape, walk: Walk) -> list[str]:
    captured = {data_pointer(array): name for name, array in walk.captured}
    frozen = tape.frozen().values()
    return [captured.get(data_pointer(a), f"constant{n}") for n, a in enumerate(frozen)]


def _probe(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], walk: Walk) -> None:
    """Run the function once, lazily, on a copy of its state; raise if a tracer comes out."""
    high, low = mx.random.state[0].tolist()  # pyright: ignore
    try:
        with _capture_in_progress():
            session = _Session(function, args, kwargs, walk, None, None)
            arrays, _ = trees.flatten(session.run())
            arrays += [array for _, array in session.written()]
    finally:
        mx.random.seed((high << 32) | low)
    if any_tracer(arrays):
        raise TracerCaptured


class _Session:
    """One run of the function on a clone of its state, with other arrays as inputs and in the slots."""

    def __init__(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        walk: Walk,
        inputs: Sequence[mx.array] | None,
        slots: Sequence[mx.array] | None,
    ):
        self._walk = walk
        self._placed = {
            (id(s.container), s.key): s.get() if slots is None else slots[n] for n, s in enumerate(walk.slots)
        }
        self._clone = Clone(lambda container, key, array: self._placed.get((id(container), key), array))
        self._function = self._clone.function(function)
        substitutes = None if inputs is None else iter(inputs)
        self._args = tuple(self._argument(a, substitutes) for a in args)
        self._kwargs = {name: self._argument(kwargs[name], substitutes) for name in sorted(kwargs)}
        self._words = [] if slots is None or inputs is None else [descriptor(a).value for a in (*inputs, *slots)]

    def run(self) -> Any:
        with checked_convolutions(lambda module: self._walk.path_of(self._clone.original(module))):
            return self._function(*self._args, **self._kwargs)

    def _argument(self, value: Any, substitutes: Iterator[mx.array] | None) -> Any:
        if isinstance(value, mx.array):
            return value if substitutes is None else next(substitutes)
        if isinstance(value, nn.Module) or is_stateful_object(value):
            return self._clone.value(value)
        if isinstance(value, dict):
            return {key: self._argument(item, substitutes) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return trees.like(value, [self._argument(item, substitutes) for item in value])
        return value

    def refuse_in_place_writes(self, tracers: Sequence[mx.array]) -> None:
        if [descriptor(a).value for a in tracers] != self._words:
            raise TraceError(
                "it writes into one of its arguments or parameters in place (x[...] = or x += on the caller's array); "
                "work on a copy, such as `x = x + 0`"
            )

    def written(self) -> list[tuple[Slot, mx.array]]:
        """What the run wrote into its state: live slots and their new arrays."""
        after = Walk().function(self._function)
        for value in (*self._args, *self._kwargs.values()):
            after.value(value, "")
        live: dict[tuple[int, Any], Slot] = {(id(s.container), s.key): s for s in self._walk.slots}
        kept: set[tuple[int, Any]] = set()
        written: list[tuple[Slot, mx.array]] = []
        for slot in after.slots:
            container = self._clone.original(slot.container)
            if container is None or isinstance(container, tuple):
                raise TraceError(f"it puts arrays into a new container of its state ('{slot.path}')")
            place = (id(container), slot.key)
            kept.add(place)
            array = slot.get()
            if array is not self._placed.get(place):
                written.append((live.get(place, Slot(container, slot.key, slot.path)), array))
        if lost := [s.path for place, s in live.items() if place not in kept]:
            raise TraceError(f"it removes '{lost[0]}' from its state")
        self._refuse_changed_items(after)
        return written

    def _refuse_changed_items(self, after: Walk) -> None:
        before = {(id(c), k): v for c, k, v in self._walk.items}
        for container, key, value in after.items:
            original = self._clone.original(container)
            old = before.get((id(original), key), _MISSING)
            same = value is old or self._clone.original(value) is old
            if not same and not (isinstance(value, (bool, int, float, str)) and value == old):
                raise TraceError(f"it changes the attribute '{key}' of its state, which a trace would do only once")


_MISSING = object()
