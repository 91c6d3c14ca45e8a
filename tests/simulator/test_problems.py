"""The 58 problems of benchmarks/conv_problems.json, shrunk, by the schedules of the full ones."""

from __future__ import annotations

import pytest
from kernels import Writer, check, loaded, silu, stored

from benchmarks.problems import Problem, problems, shrink
from convjit.geometry import Geometry
from convjit.kernel import Extra, Kernel
from convjit.schedule.metal import choose
from convjit.schedule.metal.chip import DEFAULT


def bias_silu_residual(geometry: Geometry, dtype: str) -> Kernel:
    """silu(convolution + bias) + residual."""
    write = Writer("f32", dtype, dtype)
    activated = silu(write, write("arith.addf", 0, loaded(write, 1)))
    result = stored(write, write("arith.addf", activated, loaded(write, 2)), dtype)
    bias = Extra((*(1,) * (geometry.rank + 1), geometry.out_channels), dtype)
    return Kernel(geometry, dtype, (bias, Extra(geometry.out_shape, dtype)), write.epilogue(result), (dtype,))


# All of them in all types: make metal-proof.
IN_HALVES = [
    (p, dtype) for n, p in enumerate(problems()) for dtype in ("f16", "bf16") if (n + (dtype == "f16")) % 3 == 0
]
CASES = [*((problem, "f32") for problem in problems()), *IN_HALVES]


@pytest.mark.parametrize(("problem", "dtype"), CASES, ids=[f"{problem.name}-{dtype}" for problem, dtype in CASES])
def test_problem(problem: Problem, dtype: str) -> None:
    schedule = choose(bias_silu_residual(problem.geometry, dtype), DEFAULT)
    check(bias_silu_residual(shrink(problem.geometry), dtype), schedule)
