"""The 58 problems of benchmarks/conv_problems.json, shrunk, by the schedules of the full ones."""

from __future__ import annotations

import pytest
from kernels import check

from benchmarks.kernels import EPILOGUES, kernel_of
from benchmarks.problems import Problem, problems, shrink
from convjit.schedule.metal import choose
from convjit.schedule.metal.chip import DEFAULT

FUSED = EPILOGUES[1]

# All of them in all types: make metal-proof.
CASES = [(problem, ("f32", "f16", "bf16")[n % 3]) for n, problem in enumerate(problems())]


@pytest.mark.parametrize(("problem", "dtype"), CASES, ids=[f"{problem.name}-{dtype}" for problem, dtype in CASES])
def test_problem(problem: Problem, dtype: str) -> None:
    schedule = choose(kernel_of(problem.geometry, dtype, FUSED), DEFAULT)
    check(kernel_of(shrink(problem.geometry), dtype, FUSED), schedule)
