"""Random kernels by any of their schedules: right, and nothing to find for the checker, the type check or the linter.

A fixed sample here; `make metal-fuzz` runs METAL_FUZZ_COUNT of them from METAL_FUZZ_SEED. Hypothesis prints a failing
kernel, made as small as it can.
"""

from __future__ import annotations

import os

import hypothesis
from elementwise_checks import check_random
from hypothesis import HealthCheck, given, settings, strategies
from kernels import check
from strategies import scheduled

COUNT = int(os.environ.get("METAL_FUZZ_COUNT", "40"))
SEED = int(os.environ.get("METAL_FUZZ_SEED", "1"))


as_many_as_asked_for = settings(
    max_examples=COUNT,
    deadline=None,
    database=None,
    print_blob=False,
    suppress_health_check=list(HealthCheck),
    phases=[hypothesis.Phase.generate, hypothesis.Phase.shrink],
)


@hypothesis.seed(SEED)
@as_many_as_asked_for
@given(scheduled())
def test_random_kernels(case) -> None:
    kernel, schedule = case
    check(kernel, schedule)


@hypothesis.seed(SEED)
@as_many_as_asked_for
@given(strategies.integers(0, 2**32))
def test_random_elementwise_kernels(seed: int) -> None:
    check_random(seed)
