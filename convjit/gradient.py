"""Gradients through a compiled function: under `mx.grad` and the like, a program forward and one backward.

The arrays that MLX differentiates by can be evaluated there, so kernels can run on them. What ties their results to
MLX's graph is an `mx.custom_function`: its value is what the forward program computed, its `vjp` what the backward
program computes from that and the cotangents. All other transformations of it, such as its second derivative, are
those of the user's own function. Where arrays cannot be evaluated, under `mx.vmap` or `mx.compile`, that runs as well.

Both programs come from one capture, of `mx.vjp` of the user's function, in two halves (`convjit.partition`): only for
the gradients by what is traced, and from the cotangents of those results that the gradient depends on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import mlx.core as mx

from convjit.backends import registry
from convjit.capture import Pure
from convjit.derivative import Arrays, Derivative, Halves, Operands, type_of
from convjit.entry import Bound, CallSite, Entry, compile_capture, made
from convjit.guard import Snapshot
from convjit.options import Options
from convjit.randomness import random_state
from convjit.state import Slot
from convjit.tracers import any_tracer, can_evaluate
from convjit.transforms import differentiable_convolutions

BACKENDS = ("cpu",)
"""Those that have kernels for gradients by weights."""


class Programs(NamedTuple):
    """Of a function forward, and of its gradients backward."""

    forward: Entry
    backward: Entry


class GradientEntry(Entry):
    """A signature of a compiled function under a transformation that differentiates it.

    Its snapshot is of the slots that are not traced. There are programs for each set of results that gradients came
    from so far; at first those that the function returns, without the state that it writes.
    """

    def __init__(self, snapshot: Snapshot, call: CallSite, traced: Sequence[Slot], reasons: Sequence[str]):
        super().__init__(snapshot, reasons)
        self._function, self._walk, self._traced = call.function, call.walk, traced
        self._types = [type_of(slot.get()) for slot in traced]
        self._bound = Bound(snapshot.arrays, [])
        self._derivative: Derivative | None = None
        self._compile: Callable[[Halves], Programs] | None = None
        self._programs: dict[tuple[int, ...], Programs] = {}
        self._used: tuple[int, ...] = ()
        self._making = threading.Lock()

    def add(self, derivative: Derivative, halves: Halves, compile: Callable[[Halves], Programs]) -> GradientEntry:
        """Compile a function.

        Args:
            derivative: the function.
            halves: its captures, for those results that it returns.
            compile: compiles these, and any others.
        """
        programs = compile(halves)
        self._derivative, self._compile, self._used = derivative, compile, derivative.returned
        self._programs[self._used] = programs
        self.reasons = [reason for program in programs for reason in program.reasons]
        self.notes = [note for program in programs for note in program.notes]
        self.captured, self.backend = programs.forward.captured, programs.forward.backend
        if any(program.computes_convolutions for program in programs):
            self.program = programs.forward.program
        else:
            self.reasons = [f"runs as plain MLX: {'; '.join(self.reasons) or 'it has no convolution'}"]
        return self

    def parts(self) -> dict[str, Entry]:
        programs = self._programs.get(self._used)
        return {"": programs.forward, "backward ": programs.backward} if programs else {}

    def refresh(self) -> Literal["ready", "tracer", "other"]:
        try:
            traced: list[Any] = [slot.get() for slot in self._traced]
            others: list[Any] = [slot.get() for slot in self.snapshot.slots]
        except (KeyError, IndexError):
            return "other"
        if not all(isinstance(a, mx.array) for a in (*traced, *others)) or any_tracer(others):
            return "other"
        if not all(any_tracer([a]) for a in traced) or list(map(type_of, traced)) != self._types:
            return "other"
        return super().refresh() if can_evaluate(traced) else "tracer"

    def bind(self, slots: Arrays, *, prepare: bool) -> None:
        self._bound = Bound(slots, [])
        for programs in self._programs.values():
            for program in programs:
                program.bind(slots, prepare=prepare)

    def differentiated(self, args: tuple[Any, ...], kwargs: dict[str, Any], inputs: Sequence[mx.array]) -> Any:
        """The result of a call, tied to what it is differentiated by; the state is written.

        Args:
            args, kwargs: of the call.
            inputs: the arrays among these; evaluated.
        """
        derivative, pure = self._derivative, Pure(self._function, args, kwargs, self._walk)
        assert derivative is not None
        state = [random_state()] if derivative.probed.draws else []
        operands = Operands([*inputs, *state, *(slot.get() for slot in self._traced)], self._bound.slots)
        values = [operands.first[n] for n in derivative.by]
        still = derivative.with_values(operands, [mx.stop_gradient(value) for value in values])
        plainly = replace(pure, convolutions=lambda _: differentiable_convolutions())
        expected = self._used
        results, kept = self._forward(pure, still, expected)

        def plain(values: Arrays) -> Arrays:
            every = derivative.run(plainly, derivative.with_values(operands, values))
            return [every[n] for n in derivative.results]

        def gradients(primals: Arrays, cotangents: Arrays, _: Any) -> Arrays:
            if not can_evaluate(cotangents):
                return derivative.vjp(plainly, operands, primals, derivative.results, cotangents)[1]
            used, given = _nonzero(derivative.results, cotangents)
            needed = kept if used == expected else self._forward(pure, still, used)[1]
            self._used = used
            late = [*still.first, *map(mx.stop_gradient, given), *needed]
            computed = _run(self._programs_for(pure, used).backward, late)

            def plain(arrays: Arrays) -> Arrays:
                return derivative.vjp(plainly, operands, arrays[: len(primals)], used, arrays[len(primals) :])[1]

            return _tied(computed, [*primals, *given], plain)

        for number, result in zip(
            derivative.results, _tied([results[n] for n in derivative.results], values, plain, gradients), strict=True
        ):
            results[number] = result
        return self.delivered(results)

    def _forward(self, pure: Pure, operands: Operands, used: tuple[int, ...]) -> tuple[Arrays, Arrays]:
        """All results, and what the gradients from those that are `used` need besides the operands."""
        assert self._derivative is not None
        results = _run(self._programs_for(pure, used).forward, operands.first)
        count = len(self._derivative.probed.arrays)
        return results[:count], results[count:]

    def _programs_for(self, pure: Pure, used: tuple[int, ...]) -> Programs:
        assert self._derivative is not None and self._compile is not None
        with self._making:
            if used not in self._programs:
                self._programs[used] = self._compile(self._derivative.captures(pure, used))
            return self._programs[used]


def _run(entry: Entry, arrays: Arrays) -> Arrays:
    assert entry.program is not None
    return entry.results(entry.program, arrays)


def _nonzero(numbers: Sequence[int], cotangents: Arrays) -> tuple[tuple[int, ...], Arrays]:
    """The numbers and the cotangents of those results that a gradient comes from: MLX gives zeros for the others."""
    if len(numbers) == 1:
        return tuple(numbers), cotangents
    flags: Any = mx.stack([mx.any(c != 0) for c in cotangents]).tolist()
    used = [n for n, flag in enumerate(flags) if flag]
    return tuple(numbers[n] for n in used), [cotangents[n] for n in used]


def _tied(
    values: Arrays,
    arrays: Arrays,
    plain: Callable[[Arrays], Arrays],
    vjp: Callable[[Arrays, Arrays, Any], Arrays] | None = None,
) -> Arrays:
    """`values`, which MLX takes for `plain(arrays)` from now on, whatever it does with them.

    Args:
        values: what was computed.
        arrays: what it was computed from.
        plain: a function that computes the same by operations of MLX.
        vjp: (arrays, cotangents, values) -> gradients; by default those of `plain`.
    """

    def plain_vjp(primals: Arrays, cotangents: Arrays, _: Any) -> Arrays:
        return mx.vjp(lambda *arrays: plain(list(arrays)), primals, cotangents)[1]

    def jvp(primals: Arrays, tangents: Sequence[mx.array | None]) -> Arrays:
        along = [mx.zeros_like(p) if t is None else t for p, t in zip(primals, tangents, strict=True)]
        return mx.jvp(lambda *arrays: plain(list(arrays)), primals, along)[1]

    tied: Any = mx.custom_function(lambda _: values)
    tied.vjp(vjp or plain_vjp)
    tied.jvp(jvp)
    return tied(arrays)


def make(call: CallSite, options: Options, backend: str) -> GradientEntry | None:
    """Capture and compile a function for one signature under a transformation; None if it must run plain now."""
    walk = call.walk
    captured = [array for _, array in walk.captured]
    if any_tracer([*captured, random_state()]) or not can_evaluate([*captured, *(s.get() for s in walk.slots)]):
        return None
    is_traced = [any_tracer([slot.get()]) for slot in walk.slots]
    traced = [slot for slot, is_one in zip(walk.slots, is_traced, strict=True) if is_one]
    others = [slot for slot, is_one in zip(walk.slots, is_traced, strict=True) if not is_one]
    walk.slots[:] = [*traced, *others]
    snapshot = Snapshot(walk, others)
    pure = Pure(call.function, call.args, call.kwargs, walk)

    def compile(halves: Halves) -> Programs:
        runs = registry.get(backend)
        return Programs(*(compile_capture(call.name, h, options, runs, snapshot, is_part=True) for h in halves))

    def capture() -> tuple[Derivative, Halves]:
        derivative = Derivative.of(pure, call.arguments.arrays, traced, others)
        return derivative, derivative.captures(pure, derivative.returned)

    return made(
        capture,
        lambda captured: GradientEntry(snapshot, call, traced, ()).add(*captured, compile),
        lambda reasons: GradientEntry(snapshot, call, traced, reasons),
        call.name,
        options,
    )
