"""Random kernels of every template but those of convolutions, by random schedules, on the vectors of every CPU."""

from __future__ import annotations

import numpy as np
import pytest
from kinds import RANDOM, check
from test_cpu_kernels import MACHINES

from convjit.backends.cpu import CpuBackend
from convjit.kernel import AnyKernel
from convjit.schedule import Schedule

SAMPLES = {
    "weight_gradient": 40,
    "elementwise": 32,
    "pool": 48,
    "pool_gradient": 36,
    "norm": 64,
    "softmax": 32,
    "rearrange": 48,
}
CASES = [(template, number) for template, count in SAMPLES.items() for number in range(count)]


def case(template: str, number: int) -> tuple[AnyKernel, Schedule]:
    """Machines in turn."""
    return RANDOM[template](np.random.default_rng([11, number]), MACHINES[number % len(MACHINES)])


def test_no_template_is_left_out():
    assert SAMPLES.keys() == RANDOM.keys()


@pytest.fixture(scope="module", autouse=True)
def compiled(backend: CpuBackend) -> None:
    """All kernels at once, in parallel."""
    backend.compile([case(*names) for names in CASES], lambda done, total: None)


@pytest.mark.parametrize(("template", "number"), CASES)
@pytest.mark.usefixtures("guarded_memory")
def test_random_kernel(backend: CpuBackend, template: str, number: int):
    check(backend, *case(template, number), seed=number)
