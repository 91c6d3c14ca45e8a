"""How to run a kernel on a CPU: which template, which tile."""

from __future__ import annotations

from functools import cache

from convjit.kernel import AnyKernel, Elementwise, Kernel, Norm, Pool, Softmax
from convjit.schedule import Schedule
from convjit.schedule.cpu import depthwise, direct, dot, elementwise, norm, pool, softmax, weight_gradient, winograd
from convjit.schedule.cpu.machine import Machine


@cache
def choose(kernel: AnyKernel, machine: Machine) -> Schedule:
    """The schedule that should be the fastest."""
    if isinstance(kernel, Elementwise):
        return elementwise.schedule(kernel, machine)
    if isinstance(kernel, Pool):
        return pool.schedule(kernel, machine)
    if isinstance(kernel, Norm):
        return norm.schedule(kernel, machine)
    if isinstance(kernel, Softmax):
        return softmax.schedule(kernel, machine)
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
