"""Softmaxes on the CPU against NumPy in double precision, and how they prove themselves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

import mlx.core as mx
import numpy as np
import pytest
from harness import Array, run_other
from reference import round_to
from test_cpu_kernels import MACHINES

from convjit import proof
from convjit.backends.cpu import CpuBackend
from convjit.kernel import Softmax
from convjit.proof import bundle
from convjit.proof.softmax import values
from convjit.schedule import Schedule
from convjit.schedule.cpu import softmax
from convjit.schedule.cpu.machine import Machine

ROUNDING = {"f32": 2.0**-20, "f16": 2.0**-11, "bf16": 2.0**-8}
"""Of a result, relative to it."""

SUBNORMAL = {"f32": 2.0**-126, "f16": 2.0**-25, "bf16": 2.0**-126}


def random_kernel(rng: np.random.Generator) -> Softmax:
    outer = tuple(int(n) for n in rng.choice([1, 2, 3, 7, 30], int(rng.integers(0, 4))))
    return Softmax((*outer, int(rng.choice([1, 2, 5, 16, 17, 48, 99, 1000]))), str(rng.choice(["f32", "f16", "bf16"])))


def random_schedule(rng: np.random.Generator, kernel: Softmax, machine: Machine) -> Schedule:
    """That of the machine, or one of small units."""
    chosen = softmax.schedule(kernel, machine)
    if rng.random() < 0.5:
        return chosen
    return Schedule(chosen.template, (("lanes", machine.lanes), ("row_block", int(rng.integers(1, 4)))))


def numbers_for(kernel: Softmax, seed: int) -> Array:
    rng = np.random.default_rng(seed)
    rows = (*kernel.shape[:-1], 1)
    x = rng.standard_normal(kernel.shape) * rng.uniform(0.1, 20, rows) + rng.uniform(-60, 60, rows)
    return round_to(x, kernel.dtype)


def check(backend: CpuBackend, kernel: Softmax, schedule: Schedule, x: Array) -> None:
    (got,), want = run_other(backend, kernel, schedule, [x]), values(x)
    assert got.shape == kernel.shape
    exponent = 2.0**-23 * (x.max(-1, keepdims=True) - x)  # the rounding of x - max
    off = np.abs(got - want) - (ROUNDING[kernel.dtype] + ROUNDING["f32"] + exponent) * want
    assert (off <= SUBNORMAL[kernel.dtype]).all(), f"{kernel.in_words()}: off by {off.max()}"


@pytest.mark.parametrize("columns", [3, 16, 40])
@pytest.mark.usefixtures("guarded_memory")
def test_what_is_not_finite(backend: CpuBackend, columns: int):
    """As in MLX: NaN spoils its row, so does infinity; -inf counts for nothing unless all are."""
    x = np.random.default_rng(0).standard_normal((7, columns)).astype(np.float32)
    x[0, 1], x[1, 2], x[2, 0], x[3], x[4, -1], x[5, :-1] = np.nan, np.inf, -np.inf, -np.inf, np.nan, -np.inf
    kernel = Softmax(x.shape, "f32")
    (got,) = run_other(backend, kernel, softmax.schedule(kernel, MACHINES[0]), [x.astype(np.float64)])
    np.testing.assert_allclose(got, np.array(mx.softmax(mx.array(x), axis=-1)), rtol=1e-6)


def test_rows_of_different_sizes_do_not_share_a_text(backend: CpuBackend):
    one, other = (Softmax((4, n), "f32") for n in (20, 21))
    schedule = softmax.schedule(one, MACHINES[0])
    assert backend.identity(one, schedule) != backend.identity(other, schedule)
    assert backend.identity(one, schedule) == backend.identity(one.of_rows(9), schedule)


DAMAGES = {
    "nothing": lambda x: x,
    "another row": lambda x: np.roll(x, 1, 0),
    "a column less": lambda x: np.where(np.arange(x.shape[-1]) < x.shape[-1] - 1, x, -np.inf),
    "no maximum": lambda x: x * 0.99,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_proof(damage: str):
    kernel = Softmax((3, 50, 40), "f32")
    schedule = softmax.schedule(kernel, Machine(16, 32))

    def run(arrays: Sequence[mx.array]) -> list[mx.array]:
        x = np.array(arrays[0], np.float64)
        rows = DAMAGES[damage](x.reshape(-1, x.shape[-1]))
        return [mx.array(values(rows).reshape(x.shape).astype(np.float32))]

    assert proof.prove(kernel, schedule, run).is_right is (damage == "nothing")


def test_bundles_hold_them():
    kernel = Softmax((3, 50, 40), "bf16")
    assert bundle.kernel_of(json.loads(json.dumps(asdict(kernel)))) == kernel
