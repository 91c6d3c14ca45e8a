"""Elementwise kernels of the CPU against NumPy in double precision: random shapes, broadcasts, ops and sums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from elementwise_kernels import assert_right, total
from harness import run_other
from reference import round_to
from test_cpu_kernels import MACHINES

from convjit.backends.cpu import CpuBackend
from convjit.emit.cpu import source
from convjit.kernel import Elementwise, Epilogue, Extra, Result
from convjit.schedule import Schedule
from convjit.schedule.cpu.elementwise import schedule
from convjit.schedule.cpu.machine import Machine

Array = npt.NDArray[np.float64]


def random_shape(rng: np.random.Generator) -> tuple[int, ...]:
    rank = int(rng.integers(1, 5))
    return (*(int(n) for n in rng.choice([1, 2, 3, 7, 40], rank - 1)), int(rng.choice([1, 3, 8, 16, 17, 40, 1100])))


def random_schedule(rng: np.random.Generator, kernel: Elementwise, machine: Machine) -> Schedule:
    """That of the machine, or one of small units."""
    chosen = schedule(kernel, machine)
    if rng.random() < 0.5:
        return chosen
    choices = dict(chosen.choices) | {"row_block": 3, "column_block": 2 * machine.lanes}
    return replace(chosen, choices=tuple(choices.items()))


def check(backend: CpuBackend, kernel: Elementwise, chosen: Schedule, operands: Sequence[Array]) -> None:
    assert_right(kernel, operands, run_other(backend, kernel, chosen, operands))


TOTALS = [total((n, 3, channels)) for n, channels in ((1, 16), (400, 16), (1000, 3), (2000, 64))]


@pytest.fixture(scope="module", autouse=True)
def compiled(backend: CpuBackend) -> None:
    """All kernels at once, in parallel."""
    backend.compile([(k, schedule(k, MACHINES[0])) for k in TOTALS], lambda done, total: None)


@pytest.mark.usefixtures("guarded_memory")
@pytest.mark.parametrize("kernel", TOTALS, ids=lambda k: "x".join(map(str, k.shape)))
@pytest.mark.parametrize("least", [0.5, 1.5])
def test_long_sums_are_exact(backend: CpuBackend, kernel: Elementwise, least: float):
    """Of positive numbers, to 4e-7: no chain of additions is long, not even where every one of it rounds the same way,
    since all numbers of a channel are equal."""
    x = round_to(np.random.default_rng(3).uniform(least, 1.5, kernel.shape), "f32")
    x[:] = x if least < 1.5 else round_to(np.random.default_rng(3).uniform(1, 2, kernel.shape[-1]), "f32")
    whole, summed = run_other(backend, kernel, schedule(kernel, MACHINES[0]), [x])
    assert np.array_equal(whole, x)
    np.testing.assert_allclose(summed, x.sum((0, 1)), rtol=4e-7)


@pytest.mark.usefixtures("guarded_memory")
def test_infinities_and_nan_stay_in_their_channel(backend: CpuBackend):
    kernel = TOTALS[1]
    x = np.ones(kernel.shape)
    x[17, 1, 2], x[30, 0, 5], x[31, 0, 5], x[399, 2, 9] = np.nan, np.inf, -np.inf, np.inf
    _, summed = run_other(backend, kernel, schedule(kernel, MACHINES[0]), [x])
    assert np.isnan(summed[[2, 5]]).all() and summed[9] == np.inf
    assert np.array_equal(np.delete(summed, [2, 5, 9]), np.full(13, 1200.0))


def test_kernels_that_differ_in_rows_share_a_text():
    texts = {source(total((n, 5, 16)), schedule(total((n, 5, 16)), MACHINES[0])).text for n in (2, 3, 700)}
    assert len(texts) == 1
    assert source(total((2, 5, 17)), schedule(total((2, 5, 17)), MACHINES[0])).text not in texts


def test_neighbouring_axes_are_one():
    kernel = Elementwise(
        (4, 5, 1, 6, 7),
        (Extra((4, 5, 1, 6, 7), "f32"), Extra((4, 1, 1, 1, 7), "f32"), Extra((1, 1, 1, 1, 1), "f32")),
        Epilogue(("f32", "f32", "f32"), (), (0,)),
        (Result((4, 5, 1, 6, 7), "f32"),),
    )
    same = kernel.collapsed()
    assert same.shape == (4, 30, 7) and [o.shape for o in same.operands] == [(4, 30, 7), (4, 1, 7), (1, 1, 1)]
    assert total((3, 5, 7)).collapsed().shape == (15, 7) and total((7,)).collapsed().shape == (1, 7)
