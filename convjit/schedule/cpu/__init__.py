"""How to run a kernel on a CPU: which template, which tile."""

from __future__ import annotations

from functools import cache
from typing import Any, Protocol

from convjit.kernel import AnyKernel, Elementwise, Kernel, Norm, OtherKernel, Pool, PoolGradient, Rearrange, Softmax
from convjit.schedule import Schedule
from convjit.schedule.cpu import (
    depthwise,
    direct,
    dot,
    elementwise,
    norm,
    pool,
    pool_gradient,
    rearrange,
    softmax,
    weight_gradient,
    winograd,
)
from convjit.schedule.cpu.machine import Machine

FLOPS_PER_THREAD = 500_000
"""Of convolutions: a thread that does less is not worth waking."""


class _Other(Protocol):
    """A module for kernels that are no convolutions: each has one template."""

    def schedule(self, kernel: Any, machine: Machine) -> Schedule: ...

    def useful_threads(self, kernel: Any) -> int: ...


_OTHERS: dict[type[OtherKernel], _Other] = {
    Elementwise: elementwise,
    Norm: norm,
    Pool: pool,
    PoolGradient: pool_gradient,
    Rearrange: rearrange,
    Softmax: softmax,
}


@cache
def choose(kernel: AnyKernel, machine: Machine) -> Schedule:
    """The schedule that should be the fastest."""
    if not isinstance(kernel, Kernel):
        return _OTHERS[type(kernel)].schedule(kernel, machine)
    any_batch = kernel.any_batch()
    if kernel.operation == "weight_gradient":
        return weight_gradient.schedule(any_batch, machine)
    return (
        depthwise.schedule(any_batch, machine)
        or dot.schedule(any_batch, machine)
        or winograd.schedule(kernel, machine)
        or direct.schedule(any_batch, machine)
    )


def candidates(kernel: Kernel, machine: Machine) -> list[Schedule]:
    """Schedules worth measuring, that of `choose` first."""
    any_batch = kernel.any_batch()
    if kernel.operation == "weight_gradient":
        return weight_gradient.candidates(any_batch, machine)
    if by_channel := depthwise.candidates(any_batch, machine):
        return by_channel  # the others would multiply mostly by zeros
    everything = [
        choose(kernel, machine),
        *dot.candidates(any_batch, machine),
        *winograd.candidates(kernel, machine),
        *direct.candidates(any_batch, machine),
    ]
    return list(dict.fromkeys(everything))


def smaller(kernel: AnyKernel, schedule: Schedule, machine: Machine) -> Schedule | None:
    """What to run where a schedule fails its proof: sums as defined; None behind that."""
    if not isinstance(kernel, Kernel) or kernel.operation == "weight_gradient":
        return None
    plain = direct.schedule(kernel.any_batch(), machine)
    return plain if schedule.template != plain.template else None


def useful_threads(kernel: AnyKernel) -> int:
    """How many threads are worth waking."""
    if not isinstance(kernel, Kernel):
        return _OTHERS[type(kernel)].useful_threads(kernel)
    return max(1, kernel.geometry.flops // FLOPS_PER_THREAD)
