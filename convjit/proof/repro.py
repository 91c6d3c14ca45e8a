"""Runs a kernel that failed somewhere again, from its bundle: on Metal if there is a device, else in the simulator.

Two texts are run: the bundle's own, and what this version of convjit writes for the same kernel and schedule, if that
is another one. In the simulator the kernel is checked as well, by lint, type check and the checker of its accesses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from convjit import proof, simulator
from convjit.backends import Backend, registry
from convjit.backends.metal import MetalBackend, at_least_1d, launcher
from convjit.backends.simulator import SimulatorBackend
from convjit.emit.metal.dispatch import Dispatch
from convjit.kernel import Kernel
from convjit.proof import Run, Verdict, check
from convjit.proof.bundle import Bundle
from convjit.storage.environment import convjit_version

_SHOWN = 8
_MANY = 200_000_000
"""Multiply-adds that take the simulator long enough to say so."""


@dataclass(frozen=True, slots=True)
class Replay:
    """What came of running a bundle again.

    Attributes:
        backend: where it ran.
        verdict: on the bundle's text.
        findings: what the simulator's checks say about that text; empty on a device.
        same_text: does this version of convjit write the same text?
        own: the verdict on this version's text, if that is another one.
    """

    backend: str
    verdict: Verdict
    findings: tuple[str, ...]
    same_text: bool
    own: Verdict | None

    def lines(self) -> Iterator[str]:
        """For the terminal."""
        yield f"the bundle's kernel, run on {self.backend}: {_in_words(self.verdict)}"
        yield from _details(self.verdict)
        yield from (f"  {finding}" for finding in self.findings)
        version = convjit_version()
        if self.same_text:
            yield f"this convjit ({version}) writes the same text"
        elif self.own is not None:
            yield f"this convjit ({version}) writes another text: {_in_words(self.own)}"
            yield from _details(self.own)


def describe(bundle: Bundle) -> Iterator[str]:
    """What the bundle tells, for the terminal."""
    kernel, where = bundle.kernel, bundle.environment
    device = where["device"].get("device_name", "unknown device")
    layer = f"layer {bundle.layer!r}: " if bundle.layer else ""
    yield f"{layer}{kernel.in_words()}, {bundle.schedule.in_words()}"
    yield f"failed on {device}, {where['build']}, MLX {where['mlx']}, convjit {where['convjit']}: {bundle.failure}"


def takes_long(bundle: Bundle) -> str:
    """What to tell someone who is about to wait; "" if nobody will."""
    products = bundle.kernel.geometry.flops // 2 if isinstance(bundle.kernel, Kernel) else 0
    if bundle.backend == "cpu" or mx.metal.is_available() or products < _MANY:
        return ""
    return f"simulating {products / 1e6:,.0f} million multiply-adds: this takes minutes"


def replay(bundle: Bundle) -> Replay:
    """Run the kernel of a bundle.

    Raises:
        BackendError: if the backend it needs cannot run here.
    """
    metal = "metal" if mx.metal.is_available() else "simulator"
    backend = registry.get("cpu" if bundle.backend == "cpu" else metal)
    if not bundle.dispatches or not isinstance(backend, MetalBackend):
        return _replay_source(bundle, backend)
    verdict = _prove(bundle, _run_dispatches(bundle, backend, bundle.dispatches))
    findings = _findings(bundle, backend) if isinstance(backend, SimulatorBackend) else ()
    try:
        ours = backend.dispatches(bundle.kernel, bundle.schedule)
    except Exception as e:
        return Replay(backend.name, verdict, findings, False, Verdict(error=f"{type(e).__name__}: {e}"))
    if ours == bundle.dispatches:
        return Replay(backend.name, verdict, findings, True, None)
    own = _prove(bundle, _run_dispatches(bundle, backend, ours))
    return Replay(backend.name, verdict, findings, False, own)


def _replay_source(bundle: Bundle, backend: Backend) -> Replay:
    """Where the text is missing, or made for one machine: only what is written here can run here."""
    verdict = _prove(bundle, proof.runner(backend, bundle.kernel, bundle.schedule))
    return Replay(f"{backend.name}, as this convjit writes it", verdict, (), False, None)


def _prove(bundle: Bundle, run: Run) -> Verdict:
    return proof.prove(bundle.kernel, bundle.schedule, run, bundle.seed)


def _run_dispatches(bundle: Bundle, backend: MetalBackend, dispatches: Sequence[Dispatch]) -> Run:
    """The bundle's kernel by these dispatches.

    The function raises:
        Exception: of any kind, if they cannot be compiled or run.
    """
    return lambda arrays: _runner(backend, dispatches)(*_packed(bundle, backend, arrays))


def _runner(backend: MetalBackend, dispatches: Sequence[Dispatch]) -> Callable[..., list[mx.array]]:
    launch = launcher(dispatches, poisoned=True)
    if backend.name == "metal":
        return lambda *arrays: launch(arrays)
    return lambda *arrays: simulator.run(lambda *a: launch(a), *arrays)


def _packed(bundle: Bundle, backend: MetalBackend, arrays: Sequence[mx.array]) -> list[mx.array]:
    read = [at_least_1d(a) for a in arrays]
    if isinstance(bundle.kernel, Kernel):
        read[1] = backend.pack(bundle.kernel.geometry.window, bundle.schedule, read[1])
    return read


def _findings(bundle: Bundle, backend: SimulatorBackend) -> tuple[str, ...]:
    """What the simulator's checks have to say about the bundle's dispatches."""
    arrays = _packed(bundle, backend, check.inputs(bundle.kernel, np.random.default_rng(bundle.seed)))
    try:
        return backend.examine(bundle.dispatches, arrays).findings
    except Exception as e:
        return (f"checker: {type(e).__name__}: {e}",)


def _in_words(verdict: Verdict) -> str:
    if verdict.is_right:
        return f"right ({verdict})"
    return "does not run" if verdict.error else f"WRONG ({verdict.wrong} of {verdict.checked} sampled outputs)"


def _details(verdict: Verdict) -> Iterator[str]:
    yield from (f"  {line}" for line in verdict.error.splitlines())
    for example in verdict.examples[:_SHOWN]:
        between = f"{example.low:.7g} and {example.high:.7g}"
        yield f"  result {example.result} at {example.index}: {example.actual:.7g}, should be between {between}"
    if verdict.wrong > _SHOWN:
        yield f"  ... and {verdict.wrong - min(_SHOWN, len(verdict.examples))} more"
