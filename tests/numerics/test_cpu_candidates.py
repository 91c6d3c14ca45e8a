"""Random kernels of all kinds by any schedule that tuning would try, on any machine, against the definition.

A fixed sample here; `make cpu-fuzz` runs CPU_FUZZ_COUNT of them from CPU_FUZZ_SEED.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
from kinds import RANDOM, check
from sample import layer_geometry, random_geometry, random_kernel
from test_cpu_kernels import MACHINES

from convjit.backends.cpu import CpuBackend
from convjit.kernel import AnyKernel, Kernel
from convjit.schedule import Schedule
from convjit.schedule.cpu import candidates
from convjit.schedule.cpu.machine import Machine

COUNT = int(os.environ.get("CPU_FUZZ_COUNT", "50"))
SEED = int(os.environ.get("CPU_FUZZ_SEED", "1"))
KINDS = ("convolution", "convolution", "convolution", *RANDOM)


def case(number: int) -> tuple[AnyKernel, Schedule]:
    """Case `number` of this seed: the kinds in turn."""
    rng = np.random.default_rng([SEED, number])
    machine = MACHINES[0] if rng.random() < 0.5 else MACHINES[rng.integers(len(MACHINES))]
    draw = RANDOM.get(KINDS[number % len(KINDS)], random_convolution)
    return draw(rng, machine)


def random_convolution(rng: np.random.Generator, machine: Machine) -> tuple[Kernel, Schedule]:
    """Two in three a layer as networks have them."""
    geometry = layer_geometry(rng) if rng.random() < 0.67 else random_geometry(rng)
    kernel = random_kernel(rng, str(rng.choice(["f32", "f32", "f32", "f16", "bf16"])), geometry)
    schedules = candidates(kernel.any_batch(), machine)
    return kernel, schedules[rng.integers(len(schedules))]


@pytest.fixture(scope="module", autouse=True)
def compiled(backend: CpuBackend) -> None:
    """All kernels at once, in parallel."""
    backend.compile([case(number) for number in range(COUNT)], lambda done, total: None)


@pytest.mark.parametrize("number", range(COUNT))
@pytest.mark.usefixtures("guarded_memory")
def test_candidate(backend: CpuBackend, number: int):
    check(backend, *case(number), seed=SEED * 1_000_000 + number)
