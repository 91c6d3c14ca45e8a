"""One captured signature: the program, the state it was built from, and what `explain` tells about it."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import mlx.core as mx

from convjit.backends import Backend, BackendError, registry
from convjit.errors import CompileError, PipelineError, RecordWritten, TraceError, UnsettledError
from convjit.execution.program import OnlyStretch, Program, build
from convjit.execution.quick import QuickCalls
from convjit.guards.guard import Snapshot
from convjit.guards.watch import Watch
from convjit.ir.replay import UnknownPrimitive
from convjit.lower import Lowered, lower
from convjit.options import Options
from convjit.proof import trust
from convjit.reporting import dump
from convjit.reporting.progress import kernel_progress
from convjit.tracing import trees
from convjit.tracing.call_site import CallSite
from convjit.tracing.capture import Capture, Results, TracerCaptured, capture
from convjit.tracing.optimizers import made_their_states
from convjit.tracing.randomness import random_state, set_random_state
from convjit.tracing.tracers import any_tracer
from convjit.tuning.program import tune_if_wanted

C = TypeVar("C")
E = TypeVar("E", bound="Entry")


class Bound(NamedTuple):
    """The weights a program runs with: the slots' arrays, and what `@prepare` made of them."""

    slots: list[mx.array]
    prepared: list[mx.array]


class Entry:
    """A signature of a compiled function.

    Attributes:
        snapshot: the state that the entry was made from.
        reasons: what runs as plain MLX, and why; one sentence each.
        notes: which kernels stand in for one that failed here, and why; one sentence each.
        captured, lowered: what was traced and compiled; None where the whole function runs as plain MLX.
        program: what to run; None likewise.
        is_doubtful: did the function raise an error in the capture? Most likely it is the user's own.
        quick_calls: what does calls like the ones before.
        is_unsettled: does the function change the structure of its state? After a first call, it often does no more.
    """

    def __init__(self, snapshot: Snapshot, reasons: Sequence[str]):
        self.snapshot = snapshot
        self.reasons = list(reasons)
        self.notes: list[str] = []
        self.captured: Capture | None = None
        self.lowered: Lowered | None = None
        self.backend: Backend | None = None
        self.program: Program | None = None
        self.is_doubtful = self.is_unsettled = False
        self.quick_calls = QuickCalls(self)
        self._bound = Bound([], [])
        self._lock = threading.Lock()

    def refresh(self) -> Literal["ready", "tracer", "other"]:
        """Compare the live state with the entry's, and take over new weights.

        Returns:
            "ready" to run; "tracer" if a transformation is under way; "other" if the entry is not for this state.
        """
        snapshot = self.snapshot
        if self.captured is not None and self.captured.draws and any_tracer([random_state()]):
            return "tracer"
        if snapshot.unchanged():
            return "ready"
        if not snapshot.same_structure():
            return "other"
        captured = snapshot.changed_captured()
        if captured and any_tracer(captured):
            return "tracer"
        return self._take_over()

    def _take_over(self) -> Literal["ready", "tracer", "other"]:
        with self._lock:
            snapshot = self.snapshot
            try:
                arrays: list[Any] = [slot.get() for slot in snapshot.slots]
            except (KeyError, IndexError):
                return "other"
            # Read once, under the lock: other threads may put old arrays back, and what is held must be what is bound.
            changed = snapshot.changed_slots(arrays)
            if not changed and not snapshot.is_quick:
                return "ready"
            now = [arrays[n] for n in changed]
            if not all(isinstance(a, mx.array) for a in now):
                return "other"
            if any_tracer(now):
                return "tracer"
            old = [snapshot.arrays[n] for n in changed]
            if any(a.shape != b.shape or a.dtype != b.dtype for a, b in zip(now, old, strict=True)):
                return "other"
            held = [copy.copy(array) for array in arrays]
            parameters = [n for n in changed if self._is_parameter(n)]
            mx.eval([arrays[n] for n in parameters])
            prepare = not all(snapshot.same_data(n, held[n]) for n in parameters)
            self.bind(arrays, prepare=prepare)
            # Last: until then, other threads see the change and wait for the lock instead of running on old weights.
            snapshot.hold(arrays, held)
        return "ready"

    def _is_parameter(self, slot: int) -> bool:
        if self.captured is None:
            return False
        arguments = self.captured.arguments
        return arguments[len(arguments) - len(self.snapshot.slots) + slot].kind == "parameter"

    def bind(self, slots: list[mx.array], *, prepare: bool) -> None:
        """Use these arrays in the slots from now on; `prepare` folds and packs the weights again."""
        if self.program is None or self.captured is None:
            return
        self._bound = Bound(slots, self._prepared(self.program, slots) if prepare else self._bound.prepared)

    def _prepared(self, program: Program, slots: list[mx.array]) -> list[mx.array]:
        assert self.captured is not None
        inputs = [None] * (len(self.captured.arguments) - len(slots))
        return program.prepared([*inputs, *slots, *program.constants])  # pyright: ignore

    def bound_to(self, program: Program, slots: list[mx.array]) -> Bound:
        """These arrays in the slots for one run, whatever is bound now."""
        bound = self._bound
        if bound.slots is slots:
            return bound
        changed = [n for n, (a, b) in enumerate(zip(slots, bound.slots, strict=True)) if a is not b]
        prepare = any(map(self._is_parameter, changed))
        return Bound(slots, self._prepared(program, slots) if prepare else bound.prepared)

    def give_up(self, reason: str) -> None:
        """Run the whole function as plain MLX from now on."""
        self.program = self.lowered = None
        self.reasons = [f"runs as plain MLX: {reason}"]

    @property
    def computes_convolutions(self) -> bool:
        return self.lowered is not None and self.lowered.computes_convolutions

    def parts(self) -> dict[str, Entry]:
        """The entries whose programs run for this one, and what the names of their kernels begin with."""
        return {"": self}

    def frozen(self) -> list[tuple[str, tuple[int, ...], int]]:
        """Name, shape and bytes of each captured array that the program froze."""
        if self.program is None:
            return []
        assert self.captured is not None
        names = self.captured.constant_names
        return [(name, a.shape, a.nbytes) for name, a in zip(names, self.program.constants, strict=True)]

    def run(self, program: Program, inputs: Sequence[mx.array]) -> Any:
        """The result of the user's function, which is `program`, for these input arrays; the state is written where the
        function does."""
        assert self.captured is not None
        state = [random_state()] if self.captured.draws else []
        return self.delivered(self.results(program, [*inputs, *state]))

    def results(self, program: Program, inputs: Sequence[mx.array], bound: Bound | None = None) -> list[mx.array]:
        """What `program` computes from these and the slots' arrays."""
        slots, prepared = bound or self._bound
        return program.run([*inputs, *slots, *program.constants], prepared)

    def only_stretch(self, watch: Watch, num_inputs: int) -> OnlyStretch | None:
        """If the program is one stretch: that, with the weights of `watch`. Numbers stand for the arrays of a call."""
        with self._lock:
            if self.snapshot.watch is not watch:
                return None
            slots, prepared = self._bound
        program = self.program
        return program and program.only_stretch([*range(num_inputs), *slots, *program.constants], prepared)

    def delivered(self, results: list[mx.array]) -> Any:
        """The result of the user's function, from all results of its program; the others go where they belong."""
        assert self.captured is not None
        if self.captured.draws:
            set_random_state(results.pop())
        written = self.captured.written
        if written:
            for slot, array in zip(written, results[len(results) - len(written) :], strict=True):
                slot.container[slot.key] = array
        return trees.unflatten(self.captured.outputs, results)


def make(call: CallSite, options: Options, backend: str | None) -> Entry | None:
    """Capture and compile a function for one signature; None if it must run plain now, under a transformation.

    Optimizers that it would step for the first time make their state before.
    """
    entry = _made(call, options, backend)
    if entry is None or not entry.is_unsettled:
        return entry
    if not made_their_states(call.function, call.args, call.kwargs, call.walk):
        return entry
    return _made(CallSite.of(call.name, call.function, call.args, call.kwargs, call.arguments), options, backend)


def _made(call: CallSite, options: Options, backend: str | None) -> Entry | None:
    walk, inputs = call.walk, call.arguments.arrays
    read = [*(slot.get() for slot in walk.slots), *(array for _, array in walk.captured)]
    if any_tracer([*read, random_state()]):
        return None
    mx.eval(read)
    if backend is None:
        return Entry(Snapshot(walk), ["runs as plain MLX: the default device is a GPU that is not Metal"])
    probed = _attempted(lambda: call.pure.probe(inputs))
    narrowed = call.narrowed()
    snapshot = Snapshot(narrowed.walk)

    def captured() -> Capture:
        if isinstance(probed, Exception):
            raise probed
        return capture(narrowed.pure, inputs, draws=probed.draws)

    def compiled(captured: Capture) -> Entry:
        return compile_capture(call.name, captured, options, registry.get(backend), snapshot)

    return made(captured, compiled, lambda reasons: Entry(snapshot, reasons), call.name, options)


def _attempted(run: Callable[[], Results]) -> Results | Exception:
    try:
        return run()
    except Exception as e:
        return e


def made(
    capture: Callable[[], C],
    compile: Callable[[C], E],
    plain: Callable[[Sequence[str]], E],
    name: str,
    options: Options,
) -> E | None:
    """What `compile` makes of what `capture` gives, or else what `plain` makes of the reason why it cannot; None if the
    function must run plain now."""
    try:
        captured = capture()
    except TracerCaptured:
        return None
    except RecordWritten:
        raise
    except TraceError as e:
        entry = plain([f"runs as plain MLX: {e}"])
        entry.is_unsettled = isinstance(e, UnsettledError)
        return entry
    except Exception as e:
        entry = plain([f"runs as plain MLX: a run on a copy of its state raised {type(e).__name__}: {e}"])
        entry.is_doubtful = True
        return entry
    try:
        return compile(captured)
    except PipelineError:
        raise
    except (BackendError, UnknownPrimitive) as e:
        return plain([f"runs as plain MLX: {e}"])
    except Exception as e:
        if options.fallback == "error":
            raise CompileError(f"convjit: {name}: internal error: {type(e).__name__}: {e}") from e
        return plain([f"runs as plain MLX: internal error, please report it: {type(e).__name__}: {e}"])


def compile_capture(
    name: str, captured: Capture, options: Options, backend: Backend, snapshot: Snapshot, *, is_part: bool = False
) -> Entry:
    """Compile a capture. Without convolutions there is no program, unless it `is_part` of something with some."""
    folder = dump.folder_for(name)
    tune_if_wanted(name, captured, options, backend)
    lowered = _trusted(name, captured, options, backend, folder)
    entry = Entry(snapshot, lowered.refusals())
    entry.notes = lowered.substitutes()
    entry.captured, entry.lowered, entry.backend = captured, lowered, backend
    if not is_part and not entry.computes_convolutions:
        if not lowered.slower:
            why = entry.reasons or ["it has no convolution"]
            entry.reasons = [f"runs as plain MLX: {'; '.join(why)}"]
        return entry
    if folder is not None:
        dump.write_sources(folder, lowered.sources(backend), backend.name)
        dump.write_parameters(folder, captured)
    entry.program = build(lowered.module, backend, lowered.constants, lowered.all_kernels())
    entry.bind(snapshot.arrays, prepare=True)
    return entry


def _trusted(name: str, captured: Capture, options: Options, backend: Backend, folder: Path | None) -> Lowered:
    """The capture as scheduled IR whose kernels are compiled and have proven themselves; the others stay plain MLX."""
    while True:
        with kernel_progress(name) as progress:
            lowered = lower(captured, backend.name, options, folder)
            work = lowered.work()
            backend.compile([(kernel, schedule) for _, kernel, schedule in work], progress)
            if not backend.needs_proof or trust.prove(backend, work, progress):
                return lowered
