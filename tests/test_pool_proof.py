"""Pools prove themselves: what is wrong in any one kind of outputs is found, and a bundle holds all that it takes."""

from __future__ import annotations

import json
from dataclasses import asdict

import mlx.core as mx
import numpy as np
import pytest
from test_cpu_pool import pool_of, windows_of
from test_cpu_pool_gradient import definition, gradient_of

from convjit import proof
from convjit.proof import bundle
from convjit.schedule.cpu import pool, pool_gradient
from convjit.schedule.cpu.machine import Machine

MACHINE = Machine(16, 32)

POOLS = {
    "max": pool_of("max", (5, 41, 53, 29), (3, 3), (2, 1), (1, 1)),
    "sum": pool_of("sum", (5, 41, 53, 29), (3, 3), (2, 1), (1, 1)),
    "all of 1D": pool_of("max", (2, 700, 70), (700,), (1,), (0,)),
    "halves": pool_of("sum", (2, 8, 6, 7, 40), (2, 2, 2), (2, 2, 2), (0, 0, 0), dtype="bf16"),
}

DAMAGES = {
    "first pixels": np.s_[0, 0],
    "last pixels": np.s_[-1, -1],
    "a channel": np.s_[..., 11],
    "channel tail": np.s_[..., -1],
    "last image": np.s_[-1],
}


def run(kernel, damage=None):
    def damaged(arrays):
        windows = windows_of(kernel, np.array(arrays[0].astype(mx.float32)))
        y = windows.max(-1) if kernel.kind == "max" else windows.sum(-1)
        if damage is not None:
            y[damage] *= 1.1
        return [mx.array(y.astype(np.float32)).astype(mx.bfloat16 if kernel.dtype == "bf16" else mx.float32)]

    return damaged


def verdict_on(kernel, damage=None) -> proof.Verdict:
    schedule = pool.schedule(kernel, MACHINE)
    small = proof.for_proof(kernel, schedule)
    assert small.geometry.batch == 2
    return proof.prove(small, schedule, run(small, damage))


@pytest.mark.parametrize("name", POOLS)
def test_right_results_pass(name: str):
    assert verdict_on(POOLS[name]).is_right


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", POOLS)
def test_wrong_results_are_found(name: str, damage: str):
    verdict = verdict_on(POOLS[name], DAMAGES[damage])
    assert verdict.wrong and "sampled outputs wrong here" in str(verdict)


GRADIENTS = {
    "overlapping": gradient_of((5, 41, 53, 29), (3, 3), (2, 1), (1, 1)),
    "of 1D": gradient_of((2, 700, 70), (7,), (1,), (0,)),
    "halves": gradient_of((2, 8, 6, 7, 40), (2, 2, 2), (2, 2, 2), (0, 0, 0), dtype="bf16"),
}


@pytest.mark.parametrize("damage", [None, *DAMAGES])
@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients(name: str, damage: str | None):
    kernel = GRADIENTS[name]
    schedule = pool_gradient.schedule(kernel, MACHINE)
    small = proof.for_proof(kernel, schedule)
    assert small.geometry.batch == 2

    def run(arrays):
        dx, _ = definition(small, *(np.array(a.astype(mx.float32)).astype(np.float64) for a in arrays))
        if damage is not None:
            dx[DAMAGES[damage]] += 0.1
        return [mx.array(dx.astype(np.float32)).astype(mx.bfloat16 if small.dtype == "bf16" else mx.float32)]

    verdict = proof.prove(small, schedule, run)
    assert verdict.is_right if damage is None else verdict.wrong


@pytest.mark.parametrize("name", GRADIENTS)
def test_a_bundle_holds_the_kernel_of_a_gradient(name: str):
    assert bundle.kernel_of(json.loads(json.dumps(asdict(GRADIENTS[name])))) == GRADIENTS[name]


@pytest.mark.parametrize("name", POOLS)
def test_a_bundle_holds_the_kernel(name: str):
    assert bundle.kernel_of(json.loads(json.dumps(asdict(POOLS[name])))) == POOLS[name]
