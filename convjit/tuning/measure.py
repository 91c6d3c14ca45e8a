"""Measuring a kernel on this machine: every schedule that its backend offers, and MLX's own op, on the same inputs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import mlx.core as mx
import numpy as np

from convjit import proof
from convjit.backends import Backend, BackendError, Stretch
from convjit.kernel import Kernel
from convjit.proof import check, trust
from convjit.schedule import Schedule
from convjit.tuning import plain, stopwatch
from convjit.tuning.known import Outcome, Timing

MAX_CPU_FLOPS = 1e9
"""MLX's own convolution on a CPU takes longer than anybody wants to wait, beyond this."""

Kernels = Callable[[Sequence[mx.array]], Sequence[mx.array]]


def measure(backend: Backend, layer: str, kernel: Kernel) -> Outcome | None:
    """Time the ways to run `kernel`; None if none of the backend's is right on this machine.

    What is timed has been compiled, has proven itself, and has run before.
    """
    x, weight, *extras = check.inputs(kernel, np.random.default_rng(proof.SEED))
    ways: dict[Schedule | None, stopwatch.Run] = {}
    for schedule in _right(backend, layer, kernel):
        packed = backend.pack(kernel.geometry.window, schedule, weight)
        mx.eval(packed, *extras)
        ways[schedule] = _with(backend.load(Stretch.of_kernel(kernel, schedule)), packed, extras)
    if not ways:
        return None
    if own := _own_op(kernel, x, weight, extras):
        ways[None] = own
    seconds = stopwatch.race(ways, x)
    return Outcome(tuple(Timing(schedule, *seconds[schedule]) for schedule in ways))


def _right(backend: Backend, layer: str, kernel: Kernel) -> list[Schedule]:
    """The candidates that compile and prove themselves."""
    candidates = backend.candidates(kernel)
    with contextlib.suppress(BackendError):  # which of them cannot be compiled, their proofs tell
        backend.compile([(kernel, schedule) for schedule in candidates], _ignore)
    if not backend.needs_proof:
        return candidates
    return [s for s in candidates if trust.prove(backend, [(layer, kernel, s)], _ignore)]


def _ignore(done: int, total: int) -> None:
    pass


def _with(run: Kernels, weight: mx.array, extras: list[mx.array]) -> stopwatch.Run:
    return lambda x: run([x, weight, *extras])


def _own_op(kernel: Kernel, x: mx.array, weight: mx.array, extras: list[mx.array]) -> stopwatch.Run | None:
    """MLX's own op and the epilogue, as `mx.compile` fuses it on a GPU; None if MLX cannot, or takes too long."""
    on_gpu = mx.default_device().type == mx.DeviceType.gpu
    if not on_gpu and kernel.geometry.flops > MAX_CPU_FLOPS:
        return None
    run = plain.function(kernel)
    run = mx.compile(run) if on_gpu else run
    try:
        mx.eval(run([x, weight, *extras]))
    except (RuntimeError, ValueError):  # grouped 3D convolutions, for one
        return None
    return _with(run, weight, extras)
