"""Gradients through a compiled function: under `mx.grad` and the like, a program forward and one backward.

The arrays that MLX differentiates by can be evaluated there, so kernels can run on them. What ties their results to
MLX's graph is an `mx.custom_function`: its value is what the forward program computed, its `vjp` what the backward
program computes from that and the cotangents. All other transformations of it, such as its second derivative, are
those of the user's own function. Where arrays cannot be evaluated, under `mx.vmap` or `mx.compile`, that runs as well.

Both programs come from one capture, of `mx.vjp` of the user's function, in two halves (`partition.py`): only for the
gradients by what is traced, and from the cotangents of those results that the gradient depends on. Of these gradients
MLX may want only some: `mx.grad` marks all arguments of a function as traced. So results are tied to the state and to
each argument by themselves. MLX asks at those ties that lead to what it differentiates by, and then the backward
program is compiled, for what was asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import mlx.core as mx

from convjit.backends import registry
from convjit.errors import CompileError
from convjit.execution.entry import Bound, Entry, compile_capture, made
from convjit.gradients.derivative import Arrays, Derivative, Halves, Operands, type_of
from convjit.gradients.tied import joined, tied
from convjit.gradients.transforms import differentiable_convolutions
from convjit.guards.guard import Snapshot
from convjit.guards.state import Slot
from convjit.guards.words import HAVE_DESCRIPTORS, descriptor
from convjit.options import Options
from convjit.tracing.call_site import CallSite
from convjit.tracing.capture import Capture, Pure
from convjit.tracing.randomness import random_state
from convjit.tracing.tracers import any_tracer, can_evaluate

BACKENDS = ("cpu",)
"""Those whose kernels run right away, so that MLX never differentiates through one. Metal's are built lazily."""


@dataclass(frozen=True, slots=True)
class Programs:
    """Of a function forward, and of its gradients backward.

    Attributes:
        forward: the function's results, and what the others need of it.
        backward: what the others are made from, which gives all gradients.
        for_groups: the programs of the gradients by some of `Derivative.groups`.
    """

    forward: Entry
    backward: Capture
    for_groups: dict[tuple[int, ...], Entry] = field(default_factory=dict[tuple[int, ...], Entry])


@dataclass(frozen=True, slots=True)
class _Pass:
    """A backward pass through one call. MLX asks for the gradients by one group after the other.

    Attributes:
        cotangents: what the pass is with.
        used, given: the numbers of the results that gradients come from, and the cotangents of these.
        kept: what the forward program kept for them.
        computed: group -> gradients that nobody has asked for yet.
        asked: the groups that were asked for.
    """

    cotangents: Arrays
    used: tuple[int, ...]
    given: Arrays
    kept: Arrays
    computed: dict[int, Arrays]
    asked: set[int]

    def is_with(self, cotangents: Arrays) -> bool:
        return HAVE_DESCRIPTORS and [*map(descriptor, cotangents)] == [*map(descriptor, self.cotangents)]


class GradientEntry(Entry):
    """A signature of a compiled function under a transformation that differentiates it.

    What runs when MLX asks for gradients runs on a copy, `pure`: the user's may have changed by then, as by `eval()`.

    Its snapshot is of the slots that are not traced. There are programs for each set of results that gradients came
    from so far; at first those that the function returns, without the state that it writes.
    """

    def __init__(self, snapshot: Snapshot, pure: Pure, traced: Sequence[Slot], reasons: Sequence[str]):
        super().__init__(snapshot, reasons)
        self._pure, self._traced = pure, traced
        self._types = [type_of(slot.get()) for slot in traced]
        self._bound = Bound(snapshot.arrays, [])
        self._derivative: Derivative | None = None
        self._compile: Callable[[Capture], Entry] | None = None
        self._report: Callable[[Entry], None] | None = None
        self._programs: dict[tuple[int, ...], Programs] = {}
        self._used: tuple[int, ...] = ()
        self._asked: tuple[int, ...] = ()
        self._backward: Entry | None = None
        self._making = threading.Lock()

    def add(
        self,
        derivative: Derivative,
        programs: Programs,
        compile: Callable[[Capture], Entry],
        report: Callable[[Entry], None],
    ) -> GradientEntry:
        """Add what is to run.

        Args:
            derivative: the function.
            programs: of it, for those results that it returns.
            compile: compiles others later; without a program where that fails.
            report: tells of the reasons and notes that these add to the entry's.
        """
        self._derivative, self._compile, self._report, self._used = derivative, compile, report, derivative.returned
        self._programs[self._used], forward = programs, programs.forward
        self.reasons, self.notes = list(forward.reasons), list(forward.notes)
        self.captured, self.backend = forward.captured, forward.backend
        if forward.computes_convolutions:
            self.program = forward.program
        else:
            self.reasons = [f"runs as plain MLX: {'; '.join(self.reasons) or 'it has no convolution'}"]
        return self

    def parts(self) -> dict[str, Entry]:
        programs = self._programs.get(self._used)
        if programs is None:
            return {}
        return {"": programs.forward, **({"backward ": self._backward} if self._backward else {})}

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
            for program in (programs.forward, *programs.for_groups.values()):
                program.bind(slots, prepare=prepare)

    def differentiated(self, inputs: Sequence[mx.array]) -> Any:
        """The result of a call, tied to what it is differentiated by; the state is written.

        Args:
            inputs: the arrays among the arguments of the call; evaluated.
        """
        derivative = self._derivative
        assert derivative is not None
        state = [random_state()] if derivative.probed.draws else []
        operands = Operands([*inputs, *state, *(slot.get() for slot in self._traced)], self._bound.slots)
        values = [operands.first[n] for n in derivative.by]
        still = derivative.with_values(operands, derivative.by, [mx.stop_gradient(value) for value in values])
        plainly = replace(self._pure, convolutions=lambda _: differentiable_convolutions())
        expected = self._used
        results, kept = self._forward(still, expected)
        returned = [results[n] for n in derivative.results]
        passes: list[_Pass] = []

        def pass_with(cotangents: Arrays) -> _Pass:
            if not passes or not passes[0].is_with(cotangents):
                used, given = _nonzero(derivative.results, cotangents)
                needed = kept if used == expected else self._forward(still, used)[1]
                passes[:] = [_Pass(cotangents, used, given, needed, {}, set())]
            return passes[0]

        def tied_to(group: int) -> Arrays:
            numbers = derivative.groups[group]

            def plain(arrays: Arrays) -> Arrays:
                every = derivative.run(plainly, derivative.with_values(operands, numbers, arrays))
                return [every[n] for n in derivative.results]

            def gradients(_: Arrays, cotangents: Arrays, outputs: Any) -> Arrays:
                if not can_evaluate(cotangents):
                    return derivative.vjp(plainly, operands, numbers, derivative.results, cotangents)[1]
                current = pass_with(cotangents)
                used, given = current.used, current.given
                if not self._compute(still, current, group):
                    return derivative.vjp(plainly, operands, numbers, used, given)[1]

                def plain(arrays: Arrays) -> Arrays:
                    moved = derivative.with_values(operands, derivative.by, arrays[: len(values)])
                    return derivative.vjp(plainly, moved, numbers, used, arrays[len(values) :])[1]

                return tied(current.computed.pop(group), [*values, *given], plain)

            return tied(returned, [operands.first[n] for n in numbers], plain, gradients)

        ties = [tied_to(group) for group in range(len(derivative.groups))]
        for number, result in zip(derivative.results, joined(returned, ties), strict=True):
            results[number] = result
        return self.delivered(results)

    def _forward(self, operands: Operands, used: tuple[int, ...]) -> tuple[Arrays, Arrays]:
        """All results, and what the gradients from those that are `used` need besides the operands."""
        assert self._derivative is not None
        results = _run(self._programs_for(used).forward, operands.first, operands.last)
        count = len(self._derivative.probed.arrays)
        return results[:count], results[count:]

    def _compute(self, operands: Operands, current: _Pass, group: int) -> bool:
        """Compute the gradients by a group, and by those that MLX most likely asks for next; no if plain MLX has to.

        That is what the pass before asked for; at first all further groups, as MLX begins with the last one.
        """
        assert self._derivative is not None
        groups = self._derivative.groups
        if group not in current.computed:
            following = self._asked if group in self._asked else tuple(range(group + 1))
            wanted = (group,) if current.asked else following
            backward = self._backward_for(current.used, wanted)
            if backward.program is None:
                return False
            late = [*operands.first, *map(mx.stop_gradient, current.given), *current.kept]
            found = iter(_run(backward, late, operands.last))
            current.computed.update({w: [next(found) for _ in groups[w]] for w in wanted})
        current.asked.add(group)
        self._asked = tuple(sorted(current.asked))
        return True

    def _programs_for(self, used: tuple[int, ...]) -> Programs:
        assert self._derivative is not None and self._compile is not None
        with self._making:
            if used not in self._programs:
                halves = self._derivative.captures(self._pure, used)
                self._programs[used] = Programs(self._compile(halves.forward), halves.backward)
            return self._programs[used]

    def _backward_for(self, used: tuple[int, ...], groups: tuple[int, ...]) -> Entry:
        """The program of the gradients by these groups."""
        derivative, programs = self._derivative, self._programs_for(used)
        assert derivative is not None and self._compile is not None and self._report is not None
        with self._making:
            new = groups not in programs.for_groups
            if new:
                by = [derivative.by.index(n) for group in groups for n in derivative.groups[group]]
                backward, tape = programs.backward, programs.backward.tape
                wanted = replace(
                    backward,
                    tape=replace(tape, outputs=[tape.outputs[n] for n in by]),
                    gradients_by=tuple(backward.gradients_by[n] for n in by),
                )
                programs.for_groups[groups] = self._compile(wanted)
            self._used, self._backward = used, programs.for_groups[groups]
        if new:
            self.reasons += [reason for reason in self._backward.reasons if reason not in self.reasons]
            self.notes += [note for note in self._backward.notes if note not in self.notes]
            self._report(self)
        return self._backward


def _run(entry: Entry, arrays: Arrays, slots: Arrays) -> Arrays:
    """Other arrays may be in the slots by the time that a gradient is computed: those of the call count."""
    if entry.program is None:
        raise CompileError(f"convjit: {'; '.join(entry.reasons)}")
    return entry.results(entry.program, arrays, entry.bound_to(entry.program, slots))


def _nonzero(numbers: Sequence[int], cotangents: Arrays) -> tuple[tuple[int, ...], Arrays]:
    """The numbers and the cotangents of those results that a gradient comes from: MLX gives zeros for the others."""
    if len(numbers) == 1:
        return tuple(numbers), cotangents
    flags: Any = mx.stack([mx.any(c != 0) for c in cotangents]).tolist()
    used = [n for n, flag in enumerate(flags) if flag]
    return tuple(numbers[n] for n in used), [cotangents[n] for n in used]


def make(call: CallSite, options: Options, backend: str, report: Callable[[Entry], None]) -> GradientEntry | None:
    """Capture and compile a function for one signature under a transformation; None if it must run plain now."""
    walk = call.walk
    captured = [array for _, array in walk.captured]
    if any_tracer([*captured, random_state()]) or not can_evaluate([*captured, *(s.get() for s in walk.slots)]):
        return None
    call = _narrowed(call)
    walk, pure = call.walk, call.pure
    is_traced = [any_tracer([slot.get()]) for slot in walk.slots]
    traced = [slot for slot, is_one in zip(walk.slots, is_traced, strict=True) if is_one]
    others = [slot for slot, is_one in zip(walk.slots, is_traced, strict=True) if not is_one]
    walk.slots[:] = [*traced, *others]
    snapshot = Snapshot(walk, others)

    def compile(captured: Capture) -> Entry:
        return compile_capture(call.name, captured, options, registry.get(backend), snapshot, is_part=True)

    def compile_later(captured: Capture) -> Entry:
        entry = made(lambda: captured, compile, lambda reasons: Entry(snapshot, reasons), call.name, options)
        assert entry is not None
        return entry

    def copied() -> Pure:
        copy = call.copied()
        in_order = sorted(zip(is_traced, copy.walk.slots, strict=True), key=lambda pair: not pair[0])
        copy.walk.slots[:] = [slot for _, slot in in_order]
        return copy.pure

    def gradient_entry(later: Pure, derivative: Derivative, halves: Halves) -> GradientEntry:
        programs = Programs(compile(halves.forward), halves.backward)
        return GradientEntry(snapshot, later, traced, ()).add(derivative, programs, compile_later, report)

    def capture() -> tuple[Pure, Derivative, Halves]:
        derivative = Derivative.of(pure, call.arguments.arrays, traced, others)
        return copied(), derivative, derivative.captures(pure, derivative.returned)

    return made(
        capture,
        lambda captured: gradient_entry(*captured),
        lambda reasons: GradientEntry(snapshot, pure, traced, reasons),
        call.name,
        options,
    )


def _narrowed(call: CallSite) -> CallSite:
    """The call without those attributes of the user's objects that the function does not read."""
    if not call.walk.objects:
        return call
    with suppress(Exception):  # it comes again in the capture
        call.pure.probe(call.arguments.arrays)
    return call.narrowed()
