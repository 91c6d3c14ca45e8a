"""Norms on the CPU against NumPy in double precision: any rank, groups, channels, epilogue and type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import mlx.core as mx
import numpy as np
import pytest
import reference
from harness import Array, run_other
from reference import round_to
from test_cpu_kernels import MACHINES

from convjit.backends.cpu import CpuBackend, footprint
from convjit.emit.cpu import source
from convjit.kernel import Epilogue, Extra, Instruction, Norm
from convjit.schedule import Schedule
from convjit.schedule.cpu import norm
from convjit.schedule.cpu.machine import Machine

ROUNDING = {"f32": 2.0**-20, "f16": 2.0**-10, "bf16": 2.0**-7}
"""Of a result, relative to it and to 1: twice that of half types, since both sides round."""

BARE = Epilogue(("f32",), (), (0,))


def norm_of(shape: tuple[int, ...], pixels: int = 1, groups: int = 1, eps: float = 1e-5) -> Norm:
    """Of nothing but what is normalised."""
    return Norm(shape, pixels, groups, False, eps, True, "f32", (), BARE, ("f32",))


def random_kernel(rng: np.random.Generator) -> Norm:
    """Odd sizes, any statistics, up to three extras that broadcast, up to two results."""
    rank = int(rng.integers(1, 4))
    outer = tuple(int(n) for n in rng.choice([1, 2, 3, 7, 30], rank))
    group, groups = int(rng.choice([1, 2, 3, 8, 20])), int(rng.choice([1, 2, 4, 7]))
    shape = (*outer, group * groups)
    kind = str(rng.choice(["by row", "not centered", "image", "image", "groups of a row"]))
    if kind in ("by row", "not centered"):
        shape, groups = (*outer, int(rng.choice([1, 3, 16, 17, 40, 96, 1000]))), 1
    pixels = prod(outer[1:]) if kind == "image" else 1
    centered = kind != "not centered" or pixels * groups > 1
    types = ("f32", "f32", "f32", "f16", "bf16")
    keeps = rng.choice([0.0, 0.5, 1.0], int(rng.integers(0, 4)))
    extras = tuple(Extra(_narrowed(rng, shape, keep), str(rng.choice(types))) for keep in keeps)
    epilogue, results = _epilogue(rng, extras)
    interleaved = bool(groups > 1 and rng.random() < 0.3)
    return Norm(shape, pixels, groups, interleaved, 1e-5, centered, str(rng.choice(types)), extras, epilogue, results)


def _narrowed(rng: np.random.Generator, shape: tuple[int, ...], keep: float) -> tuple[int, ...]:
    """With extents of 1 at random, along the channels less often."""
    *outer, channels = shape
    return (*(n if rng.random() < keep else 1 for n in outer), channels if rng.random() < 0.7 else 1)


def _epilogue(rng: np.random.Generator, extras: tuple[Extra, ...]) -> tuple[Epilogue, tuple[str, ...]]:
    """What is normalised, multiplied or added to by each extra; as two results, perhaps."""
    instructions: list[Instruction] = []

    def add(op: str, *operands: int, type_: str = "f32") -> int:
        instructions.append(Instruction(op, operands, type_))
        return len(extras) + len(instructions)

    value = 0
    for number, extra in enumerate(extras, 1):
        read = number if extra.dtype == "f32" else add("arith.extf", number)
        value = add(str(rng.choice(["arith.mulf", "arith.addf"])), value, read)
    results = tuple(str(t) for t in rng.choice(["f32", "f32", "f16", "bf16"], int(rng.integers(1, 3))))
    stored = [v if t == "f32" else add("arith.truncf", v, type_=t) for v, t in zip((value, 0), results, strict=False)]
    return Epilogue(("f32", *(e.dtype for e in extras)), tuple(instructions), tuple(stored)), results


def random_schedule(rng: np.random.Generator, kernel: Norm, machine: Machine) -> Schedule:
    """That of the machine, or one of small units."""
    chosen = norm.schedule(kernel, machine)
    if rng.random() < 0.5:
        return chosen
    choices = dict(chosen.choices) | {"row_block": int(rng.integers(1, 6))}
    if not kernel.is_by_row:
        group = kernel.shape[-1] // (1 if kernel.interleaved else kernel.groups)
        choices["width"] = group * int(rng.integers(1, 3))
    return replace(chosen, choices=tuple(choices.items()))


def numbers_for(kernel: Norm, seed: int) -> list[Array]:
    """Images, pixels and channels differ in their means and spreads."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(kernel.shape)
    for axis in range(x.ndim):
        shape = tuple(n if a == axis else 1 for a, n in enumerate(x.shape))
        x = x * rng.uniform(0.7, 1.5, shape) + rng.uniform(-1, 1, shape)
    arrays = [x, *(rng.uniform(-1.5, 1.5, e.shape) for e in kernel.extras)]
    return [round_to(a, dtype) for a, dtype in zip(arrays, kernel.operand_dtypes, strict=True)]


def normalised(kernel: Norm, x: Array) -> Array:
    view, axes = (kernel.images, kernel.pixels, kernel.groups, -1), (1, 3)
    if kernel.interleaved:
        view, axes = (kernel.images, kernel.pixels, -1, kernel.groups), (1, 2)
    parts = x.reshape(view)
    mean = parts.mean(axes, keepdims=True) if kernel.centered else 0
    variance = ((parts - mean) ** 2).mean(axes, keepdims=True)
    return ((parts - mean) / np.sqrt(variance + kernel.eps)).reshape(kernel.shape)


def check(backend: CpuBackend, kernel: Norm, schedule: Schedule, arrays: Sequence[Array]) -> None:
    x, *extras = arrays
    values = [normalised(kernel, x), *extras]
    scale = sum(map(np.abs, values)) + np.prod(np.broadcast_arrays(*(1 + np.abs(v) for v in values)), 0)
    expected = reference.epilogue(kernel.epilogue, values)
    for got, want, dtype in zip(
        run_other(backend, kernel, schedule, arrays), expected, kernel.result_dtypes, strict=True
    ):
        assert got.shape == kernel.shape
        bound = ROUNDING["f32"] * scale + (ROUNDING[dtype] * (np.abs(want) + 2.0**-13) if dtype != "f32" else 0)
        assert (np.abs(got - want) <= bound).all(), f"{kernel.in_words()}: off by {np.abs(got - want).max()}"


LARGE = {
    "by row": norm_of((40, 2000)),
    "groups": norm_of((2, 37, 41, 64), 37 * 41, 8),
    "interleaved groups": replace(norm_of((2, 37, 41, 64), 37 * 41, 8), interleaved=True),
    "an image": norm_of((1, 100, 90, 20), 9000),
    "channels": norm_of((3, 50, 60, 33), 3000, 33),
}


@pytest.mark.usefixtures("guarded_memory")
@pytest.mark.parametrize("machine", MACHINES[:2], ids=["AVX-512", "AVX2"])
@pytest.mark.parametrize("mean", [1e4, 1e6])
@pytest.mark.parametrize("name", LARGE)
def test_a_large_mean_costs_no_digits(backend: CpuBackend, name: str, mean: float, machine: Machine):
    """MLX, in single precision throughout, is not better."""
    kernel = LARGE[name]
    x = round_to(np.random.default_rng(7).standard_normal(kernel.shape) + mean, "f32")
    (got,) = run_other(backend, kernel, norm.schedule(kernel, machine), [x])
    want = normalised(kernel, x)
    rows = x.reshape(kernel.images, kernel.pixels, kernel.groups, -1).transpose(0, 2, 1, 3)
    plain = mx.fast.layer_norm(mx.array(rows.reshape(*rows.shape[:2], -1).astype(np.float32)), None, None, kernel.eps)
    of_mlx = np.array(plain, np.float64).reshape(rows.shape).transpose(0, 2, 1, 3).reshape(kernel.shape)
    assert np.abs(got - want).max() <= min(3e-6, np.abs(of_mlx - want).max())


@pytest.mark.usefixtures("guarded_memory")
@pytest.mark.parametrize("name", LARGE)
def test_equal_numbers_are_zero(backend: CpuBackend, name: str):
    """Not what is left of a rounded mean, divided by the root of eps."""
    kernel = LARGE[name]
    (got,) = run_other(backend, kernel, norm.schedule(kernel, MACHINES[0]), [np.full(kernel.shape, 1234.5)])
    assert (got == 0).all()


@pytest.mark.usefixtures("guarded_memory")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", LARGE)
def test_what_is_not_finite_makes_all_of_its_group_nan(backend: CpuBackend, name: str, value: float):
    kernel = LARGE[name]
    x = np.random.default_rng(3).standard_normal(kernel.shape).astype(np.float32).astype(np.float64)
    place = tuple(n - 1 for n in kernel.shape)
    x[place] = value
    (got,) = run_other(backend, kernel, norm.schedule(kernel, MACHINES[0]), [x])
    with np.errstate(invalid="ignore"):
        want = normalised(kernel, x)
    assert np.array_equal(np.isnan(got), np.isnan(want))
    assert np.isnan(want).sum() == prod(kernel.shape) // (kernel.images * kernel.groups)


@pytest.mark.parametrize("name", LARGE)
@pytest.mark.usefixtures("guarded_memory")
def test_threads_change_no_bit(backend: CpuBackend, name: str, monkeypatch: pytest.MonkeyPatch):
    kernel, arrays = LARGE[name], numbers_for(LARGE[name], 5)
    schedule = norm.schedule(kernel, MACHINES[0])
    (by_all,) = run_other(backend, kernel, schedule, arrays)
    monkeypatch.setattr(footprint, "useful_threads", lambda kernel: 1)
    (by_one,) = run_other(backend, kernel, schedule, arrays)
    assert np.array_equal(by_all, by_one)


@pytest.mark.usefixtures("guarded_memory")
def test_an_infinite_mean_of_squares_makes_numbers_zero(backend: CpuBackend):
    kernel = replace(norm_of((3, 40)), centered=False)
    x = np.ones(kernel.shape)
    x[1, 7], x[2, 39] = np.inf, np.nan
    (got,) = run_other(backend, kernel, norm.schedule(kernel, MACHINES[0]), [x])
    want = np.array(mx.fast.rms_norm(mx.array(x.astype(np.float32)), None, kernel.eps))
    np.testing.assert_allclose(got, want, rtol=1e-6)
    assert (got[1, :7] == 0).all() and np.isnan(got[1, 7]) and np.isnan(got[2]).all()


def test_kernels_that_differ_in_images_or_pixels_share_a_text():
    def text(*shape: int) -> str:
        kernel = norm_of(shape, prod(shape[1:-1]), 4)
        return source(kernel, norm.schedule(kernel, MACHINES[0])).text

    assert text(2, 9, 8, 40) == text(5, 9, 8, 40) == text(1, 6, 7, 40) == text(3, 11, 40) != text(2, 9, 8, 44)
    rows = [norm_of(shape) for shape in ((7, 40), (2, 3, 40), (1, 40))]
    assert len({source(kernel, norm.schedule(kernel, MACHINES[0])).text for kernel in rows}) == 1
