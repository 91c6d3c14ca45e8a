"""What schedules of the full 58 problems promise: little padding in matrices, limits, no zero-inserted inputs."""

from __future__ import annotations

from math import prod

import pytest
from kernels import efficiency

from benchmarks.problems import Problem, problems
from convjit.geometry import Geometry
from convjit.kernel import Kernel, identity_epilogue
from convjit.schedule.metal import choose
from convjit.schedule.metal.chip import CHIPS, Chip
from convjit.schedule.metal.tile import Tiling, useful

ON_MATRICES = ("metal/gemm.metal", "metal/stem.metal", "metal/gather.metal")


def bare(geometry: Geometry) -> Kernel:
    return Kernel(geometry, "f32", (), identity_epilogue("f32"), ("f32",))


def is_dense(geometry: Geometry) -> bool:
    """At least 32 channels in and out of a group, and 128 output pixels."""
    channels = min(geometry.in_channels, geometry.out_channels) // geometry.window.groups
    return channels >= 32 and geometry.batch * prod(geometry.out_size) >= 128


DENSE = [p for p in problems() if is_dense(p.geometry)]
TRANSPOSED = [p for p in problems() if p.geometry.window.transposed]


@pytest.mark.parametrize("chip", [CHIPS[name] for name in ("M1", "M2 Pro", "M4 Max")], ids=lambda chip: chip.name)
@pytest.mark.parametrize("problem", DENSE, ids=lambda problem: problem.name)
def test_dense_matrices_hold_little_padding(problem: Problem, chip: Chip) -> None:
    kernel = bare(problem.geometry)
    schedule = choose(kernel, chip)
    assert schedule.template in ON_MATRICES
    assert efficiency(kernel, schedule) >= 0.85


@pytest.mark.parametrize("problem", TRANSPOSED, ids=lambda problem: problem.name)
def test_transposed_convolutions_issue_no_zeros(problem: Problem) -> None:
    kernel = bare(problem.geometry)
    schedule = choose(kernel, CHIPS["M1 Pro"])
    # Kernels of one thread a pixel issue only the taps that meet elements: tests with counters show it.
    issued = Tiling.of(kernel, schedule).issued if schedule.template in ON_MATRICES else useful(kernel)
    assert useful(kernel) >= 0.85 * issued
    geometry = problem.geometry
    zero_inserted = prod(geometry.out_shape) * prod(geometry.weight_shape[1:])
    if geometry.rank == 2 and geometry.window.input_dilation == (2, 2):
        assert issued <= 0.3 * zero_inserted
