"""Random layers by any schedule that tuning would try, on any machine, against the definition.

A fixed sample here; `make cpu-fuzz` runs CPU_FUZZ_COUNT of them from CPU_FUZZ_SEED.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
from sample import layer_geometry, random_geometry, random_kernel, random_numbers
from test_cpu_kernels import MACHINES, check

from convjit.backends.cpu import CpuBackend
from convjit.kernel import Kernel
from convjit.schedule import Schedule
from convjit.schedule.cpu import candidates

COUNT = int(os.environ.get("CPU_FUZZ_COUNT", "48"))
SEED = int(os.environ.get("CPU_FUZZ_SEED", "1"))


def case(number: int) -> tuple[Kernel, Schedule]:
    """Case `number` of this seed: two in three a layer as networks have them."""
    rng = np.random.default_rng([SEED, number])
    geometry = layer_geometry(rng) if rng.random() < 0.67 else random_geometry(rng)
    kernel = random_kernel(rng, str(rng.choice(["f32", "f32", "f32", "f16", "bf16"])), geometry)
    machine = MACHINES[0] if rng.random() < 0.5 else MACHINES[rng.integers(len(MACHINES))]
    schedules = candidates(kernel.any_batch(), machine)
    return kernel, schedules[rng.integers(len(schedules))]


@pytest.fixture(scope="module", autouse=True)
def compiled(backend: CpuBackend) -> None:
    """All kernels at once, in parallel."""
    backend.compile([case(number) for number in range(COUNT)], lambda done, total: None)


@pytest.mark.parametrize("number", range(COUNT))
@pytest.mark.usefixtures("guarded_memory")
def test_candidate(backend: CpuBackend, number: int):
    kernel, schedule = case(number)
    check(backend, kernel, schedule, random_numbers(np.random.default_rng([SEED, number]), kernel))
