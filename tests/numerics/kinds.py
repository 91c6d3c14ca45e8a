"""Kernels other than convolutions, drawn by a seed, and the check of any kernel."""

from __future__ import annotations

from collections.abc import Callable

import elementwise_kernels
import numpy as np
import test_cpu_elementwise
import test_cpu_kernels
import test_cpu_norm
import test_cpu_pool
import test_cpu_pool_gradient
import test_cpu_rearrange
import test_cpu_softmax
import test_cpu_weight_gradient
from sample import random_numbers

from convjit.backends.cpu import CpuBackend
from convjit.kernel import AnyKernel, Elementwise, Kernel, Norm, Pool, PoolGradient, Rearrange, Softmax
from convjit.schedule import Schedule
from convjit.schedule.cpu.machine import Machine


def random_elementwise(rng: np.random.Generator, machine: Machine) -> tuple[Elementwise, Schedule]:
    kernel = elementwise_kernels.random_kernel(rng, test_cpu_elementwise.random_shape(rng))
    return kernel, test_cpu_elementwise.random_schedule(rng, kernel, machine)


def random_weight_gradient(rng: np.random.Generator, machine: Machine) -> tuple[Kernel, Schedule]:
    dtype = str(rng.choice(["f32", "f32", "f16", "bf16"]))
    kernel = test_cpu_weight_gradient.kernel_of(test_cpu_weight_gradient.random_geometry(rng), dtype)
    return kernel, test_cpu_weight_gradient.random_schedule(rng, kernel, machine)


def random_pool(rng: np.random.Generator, machine: Machine) -> tuple[Pool, Schedule]:
    kernel = test_cpu_pool.random_kernel(rng)
    return kernel, test_cpu_pool.random_schedule(rng, kernel, machine)


def random_pool_gradient(rng: np.random.Generator, machine: Machine) -> tuple[PoolGradient, Schedule]:
    kernel = test_cpu_pool_gradient.random_kernel(rng)
    return kernel, test_cpu_pool_gradient.random_schedule(rng, kernel, machine)


def random_norm(rng: np.random.Generator, machine: Machine) -> tuple[Norm, Schedule]:
    kernel = test_cpu_norm.random_kernel(rng)
    return kernel, test_cpu_norm.random_schedule(rng, kernel, machine)


def random_softmax(rng: np.random.Generator, machine: Machine) -> tuple[Softmax, Schedule]:
    kernel = test_cpu_softmax.random_kernel(rng)
    return kernel, test_cpu_softmax.random_schedule(rng, kernel, machine)


def random_rearrange(rng: np.random.Generator, machine: Machine) -> tuple[Rearrange, Schedule]:
    return test_cpu_rearrange.random_kernel(rng), test_cpu_rearrange.random_schedule(rng)


RANDOM: dict[str, Callable[[np.random.Generator, Machine], tuple[AnyKernel, Schedule]]] = {
    "weight_gradient": random_weight_gradient,
    "elementwise": random_elementwise,
    "pool": random_pool,
    "pool_gradient": random_pool_gradient,
    "norm": random_norm,
    "softmax": random_softmax,
    "rearrange": random_rearrange,
}
"""Name of a template -> what draws one of its kernels and a schedule."""


def check(backend: CpuBackend, kernel: AnyKernel, schedule: Schedule, seed: int) -> None:
    """On random numbers, against the definition in double precision."""
    if isinstance(kernel, Elementwise):
        test_cpu_elementwise.check(backend, kernel, schedule, elementwise_kernels.numbers_for(kernel, seed))
    elif isinstance(kernel, Pool):
        test_cpu_pool.check(backend, kernel, schedule, test_cpu_pool.numbers_for(kernel, seed))
    elif isinstance(kernel, PoolGradient):
        numbers = test_cpu_pool_gradient.numbers_for(kernel, seed)
        test_cpu_pool_gradient.check(backend, kernel, schedule, numbers)
    elif isinstance(kernel, Norm):
        test_cpu_norm.check(backend, kernel, schedule, test_cpu_norm.numbers_for(kernel, seed))
    elif isinstance(kernel, Softmax):
        test_cpu_softmax.check(backend, kernel, schedule, test_cpu_softmax.numbers_for(kernel, seed))
    elif isinstance(kernel, Rearrange):
        test_cpu_rearrange.check(backend, kernel, schedule, test_cpu_rearrange.numbers_for(kernel, seed))
    elif kernel.operation == "weight_gradient":
        test_cpu_weight_gradient.check(backend, kernel, schedule, *test_cpu_weight_gradient.numbers_of(kernel, seed))
    else:
        test_cpu_kernels.check(backend, kernel, schedule, random_numbers(np.random.default_rng(seed), kernel))
