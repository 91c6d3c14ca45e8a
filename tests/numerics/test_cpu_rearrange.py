"""Rearrangements on the CPU against NumPy, bit by bit, and how they prove themselves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from math import prod

import mlx.core as mx
import numpy as np
import pytest
from harness import Array, alone, run_other
from reference import round_to
from test_cpu_kernels import MACHINES

from convjit import proof
from convjit.backends.cpu import CpuBackend
from convjit.kernel import Part, Rearrange
from convjit.proof import bundle
from convjit.proof.rearrange import values
from convjit.schedule import Schedule
from convjit.schedule.cpu import choose
from convjit.schedule.cpu.machine import Machine


def strides_of(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))


def random_part(rng: np.random.Generator, shape: tuple[int, ...], axis: int, start: int, whole: tuple[int, ...]):
    """A slice of a transposed, repeated operand of its own, and the operand's shape."""
    order = rng.permutation(len(shape)).tolist()
    repeated = [bool(rng.random() < 0.15) for _ in shape]
    steps = [int(rng.choice([1, 1, 1, 2, 3])) for _ in shape]
    firsts = [int(rng.integers(0, 3)) for _ in shape]
    extents = [1 if r else f + (n - 1) * s + 1 for n, r, s, f in zip(shape, repeated, steps, firsts, strict=True)]
    operand = tuple(extents[a] for a in order)
    dense = dict(zip(order, strides_of(operand), strict=True))
    source = sum(0 if r else f * dense[a] for a, (r, f) in enumerate(zip(repeated, firsts, strict=True)))
    strides = tuple(0 if r else s * dense[a] for a, (r, s) in enumerate(zip(repeated, steps, strict=True)))
    target = strides_of(whole)
    return Part(shape, source, strides, start * target[axis], target).collapsed(), operand


def random_kernel(rng: np.random.Generator) -> Rearrange:
    """A concatenation of up to three slices."""
    shape = [int(n) for n in rng.choice([1, 2, 3, 5, 8, 17, 40], int(rng.integers(1, 5)))]
    axis, extents = int(rng.integers(len(shape))), [int(n) for n in rng.integers(1, 20, int(rng.integers(1, 4)))]
    whole = (*shape[:axis], sum(extents), *shape[axis + 1 :])
    parts: list[Part] = []
    operands: list[tuple[int, ...]] = []
    for number, extent in enumerate(extents):
        box = (*shape[:axis], extent, *shape[axis + 1 :])
        part, operand = random_part(rng, box, axis, sum(extents[:number]), whole)
        parts.append(part)
        operands.append(operand)
    return Rearrange(whole, str(rng.choice(["f32", "f16", "bf16"])), tuple(operands), tuple(parts))


def random_schedule(rng: np.random.Generator) -> Schedule:
    return Schedule("cpu/rearrange.c", (("unit", int(rng.choice([1, 64, 500, 32768]))),))


def numbers_for(kernel: Rearrange, seed: int) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [round_to(rng.standard_normal(shape), kernel.dtype) for shape in kernel.operand_shapes]


def check(backend: CpuBackend, kernel: Rearrange, schedule: Schedule, arrays: Sequence[Array]) -> None:
    (got,) = run_other(backend, kernel, schedule, arrays)
    np.testing.assert_array_equal(got, values(kernel, [a.astype(np.float32) for a in arrays]))


def test_the_reference_is_what_numpy_does():
    """A concatenation of a slice and a transposed array."""
    a, b = np.arange(24.0, dtype=np.float32).reshape(4, 6), np.arange(12.0, dtype=np.float32).reshape(3, 4)
    parts = (Part((4, 2), 1, (6, 2), 0, (5, 1)), Part((4, 3), 0, (1, 4), 2, (5, 1)))
    kernel = Rearrange((4, 5), "f32", (a.shape, b.shape), parts)
    np.testing.assert_array_equal(values(kernel, [a, b]), np.concatenate([a[:, 1:5:2], b.T], axis=1))


@pytest.mark.parametrize("shape", [(3, 64, 70), (70, 64, 3), (64, 4, 4, 33)], ids=str)
@pytest.mark.usefixtures("guarded_memory")
def test_what_is_large_is_shared_by_threads(backend: CpuBackend, shape: tuple[int, ...]):
    axes = (*range(1, len(shape)), 0)
    result = tuple(shape[axis] for axis in axes)
    strides = tuple(strides_of(shape)[axis] for axis in axes)
    kernel = Rearrange(result, "f32", (shape,), (Part(result, 0, strides, 0, strides_of(result)),))
    check(backend, kernel, Schedule("cpu/rearrange.c", (("unit", 2000),)), numbers_for(kernel, 0))


@pytest.mark.usefixtures("guarded_memory")
def test_every_bit_stays(backend: CpuBackend):
    """Of NaN, too: elements are no numbers here."""
    bits = np.array([0x7FC12345, 0xFFC00001, 0x7F800000, 0x80000000], np.uint32)
    kernel = Rearrange((2, 4), "f32", ((4,),), (Part((2, 4), 0, (0, 1), 0, (4, 1)),))
    (got,) = alone(backend, kernel, choose(kernel, MACHINES[0]))([bits.view(np.float32)])
    np.testing.assert_array_equal(np.array(got).view(np.uint32), [bits, bits])


def test_all_share_a_text_for_each_size_of_elements(backend: CpuBackend):
    rng = np.random.default_rng(0)
    texts = {backend.identity(k, choose(k, MACHINES[0])) for k in (random_kernel(rng) for _ in range(20))}
    assert len(texts) == 2


DAMAGES = {
    "nothing": lambda y: y,
    "another place": lambda y: np.roll(y, 1),
    "another row": lambda y: np.concatenate([np.roll(y[:-300].reshape(-1, 24), 1, 0).ravel(), y[-300:]]),
    "a column": lambda y: np.where(np.arange(y.size) % 24 == 22, 0, y),
}


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_proof(damage: str, dtype: str):
    any_kernel = replace(random_kernel(np.random.default_rng(0)), dtype=dtype)
    schedule = choose(any_kernel, Machine(16, 32))
    kernel = proof.for_proof(any_kernel, schedule)
    assert isinstance(kernel, Rearrange)

    def run(arrays: Sequence[mx.array]) -> list[mx.array]:
        read = [np.array(a.astype(mx.float32)) for a in arrays]
        return [mx.array(DAMAGES[damage](values(kernel, read))).astype(arrays[0].dtype)]

    assert proof.prove(kernel, schedule, run).is_right is (damage == "nothing")


def test_bundles_hold_them():
    kernel = random_kernel(np.random.default_rng(1))
    assert bundle.kernel_of(json.loads(json.dumps(asdict(kernel)))) == kernel
