"""CPU kernels against the definition, on geometries of every kind."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import reference
from harness import run, schedule_of
from sample import Numbers, random_kernel, random_numbers

from convjit.backends.cpu import CpuBackend
from convjit.geometry import Geometry, Window, plain_window
from convjit.kernel import Epilogue, Extra, Instruction, Kernel, identity_epilogue
from convjit.schedule import Schedule
from convjit.schedule.cpu import choose, direct
from convjit.schedule.cpu.machine import Machine

SAMPLES = 128
EPS = {"f32": 2.0**-24, "f16": 2.0**-11, "bf16": 2.0**-8}
MACHINES = [Machine(16, 32), Machine(8, 16), Machine(4, 32), Machine(4, 16)]
""" AVX-512, AVX2, NEON, SSE2: the compiler makes the vectors that this CPU lacks."""


def tolerance(kernel: Kernel, numbers: Numbers) -> reference.Array:
    """Elementwise: rounding of the sum, of the additions after it, and of the store."""
    scale = np.abs(numbers.extras[0]) if numbers.extras else np.ones(1)
    terms = reference.magnitude(kernel, numbers.x, numbers.w) * scale + sum(np.abs(e) for e in numbers.extras[1:])
    single = terms * (32 * EPS["f32"])
    if kernel.dtype == "f32":
        return single
    return single + terms * (2 * EPS[kernel.dtype]) + 2.0**-24  # both sides round, perhaps to different neighbours


def check(backend: CpuBackend, kernel: Kernel, schedule: Schedule, numbers: Numbers) -> None:
    expected = reference.results(kernel, numbers.x, numbers.w, numbers.extras)
    allowed = tolerance(kernel, numbers)
    for got, want in zip(run(backend, kernel, schedule, numbers.x, numbers.w, numbers.extras), expected, strict=True):
        assert got.shape == want.shape
        assert not np.isnan(got).any(), f"{np.isnan(got).sum()} of {got.size} outputs were not written"
        excess = np.abs(got - want) - allowed
        assert excess.max() <= 1e-30, f"{(excess > 0).sum()} of {got.size} outputs are wrong: {got} instead of {want}"


def small_blocks(kernel: Kernel, machine: Machine) -> Schedule:
    """A schedule with many blocks and sums that are set aside, which only large layers have otherwise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(direct, "BLOCK_PIXELS", 12)
        return choose(kernel.any_batch(), replace(machine, l2_bytes=6000))


def work() -> list[tuple[Kernel, Schedule]]:
    """The sample: one kernel in six in half precision, one in two with small blocks, the machines in turn."""
    rng = np.random.default_rng(2024)
    kernels = [random_kernel(rng, "f32" if n % 6 else ("f16", "bf16")[n // 6 % 2]) for n in range(SAMPLES)]
    return [
        (kernel, (small_blocks if n // 2 % 2 else choose)(kernel.any_batch(), MACHINES[n % 4]))
        for n, kernel in enumerate(kernels)
    ]


@pytest.fixture(scope="module", autouse=True)
def compiled(backend: CpuBackend) -> None:
    """All kernels at once, in parallel."""
    backend.compile(work(), lambda done, total: None)


@pytest.mark.parametrize("number", range(SAMPLES))
@pytest.mark.usefixtures("guarded_memory")
def test_random_kernel(backend: CpuBackend, number: int):
    kernel, schedule = work()[number]
    check(backend, kernel, schedule, random_numbers(np.random.default_rng(number), kernel))


def bare(x: tuple[int, ...], w: tuple[int, ...], window: Window) -> Kernel:
    return Kernel(Geometry.of_shapes(x, w, window), "f32", (), identity_epilogue("f32"), ("f32",))


TRANSPOSED = Window((1, 1), (1, 2), (2, 1), (1, 1), (3, 2), groups=2, flip=True)
CASES = {
    "a chain of 5400 terms": bare((1, 4, 17, 600), (20, 3, 3, 600), plain_window(2)),
    "a chain of 5000 terms in one run": bare((2, 5, 5, 5000), (3, 1, 1, 5000), plain_window(2)),
    "one element": bare((1, 1, 1), (1, 1, 1), plain_window(1)),
    "no image": bare((0, 5, 5, 3), (4, 3, 3, 3), plain_window(2)),
    "padding beyond the kernel": bare((2, 3, 2), (3, 2, 2), replace(plain_window(1), pad_lo=(9,), pad_hi=(7,))),
    "nothing but padding": bare((1, 2, 2), (3, 1, 2), replace(plain_window(1), pad_lo=(-3,), pad_hi=(5,))),
    "phases without taps": bare((1, 7, 5), (4, 1, 5), Window((1,), (0,), (0,), (1,), (4,), flip=True)),
    "fewer outputs than phases": bare((1, 2, 5), (4, 3, 5), Window((1,), (-1,), (-2,), (1,), (5,), flip=True)),
    "more rows than a block": bare((1, 150, 40, 3), (5, 3, 3, 3), replace(plain_window(2), strides=(2, 1))),
    "a long row": bare((1, 5000, 2), (8, 7, 2), replace(plain_window(1), pad_lo=(6,))),
    "pointwise": bare((3, 40, 41, 9), (48, 1, 1, 9), plain_window(2)),
    "depth is pointwise": bare((2, 4, 6, 7, 3), (5, 1, 3, 3, 3), plain_window(3)),
    "depthwise": bare((2, 9, 9, 37), (37, 3, 3, 1), replace(plain_window(2, 37), pad_lo=(1, 1), pad_hi=(1, 1))),
    "depthwise, long kernel": bare((1, 50, 20), (20, 31, 1), replace(plain_window(1, 20), pad_lo=(15,), pad_hi=(15,))),
    "depthwise, dilated": bare((1, 9, 40, 5), (5, 3, 9, 1), Window((1, 2), (4, 9), (4, 9), (4, 3), (1, 1), groups=5)),
    "depthwise, transposed": bare((1, 9, 6), (6, 4, 1), Window((1,), (2,), (3,), (1,), (2,), groups=6, flip=True)),
    "depthwise, too dilated": bare((1, 300, 3), (3, 3, 1), replace(plain_window(1, 3), kernel_dilation=(99,))),
    "transposed and grouped": bare((2, 7, 6, 6), (10, 3, 4, 3), TRANSPOSED),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.usefixtures("guarded_memory")
def test_corner(backend: CpuBackend, name: str):
    kernel = CASES[name]
    if kernel.geometry.batch == 0:
        (got,) = run(backend, kernel, schedule_of(backend, kernel), *empty(kernel))
        assert got.shape == kernel.geometry.out_shape
        return
    check(backend, kernel, schedule_of(backend, kernel), random_numbers(np.random.default_rng(0), kernel))


def empty(kernel: Kernel) -> tuple[reference.Array, reference.Array, list[reference.Array]]:
    return np.zeros(kernel.geometry.in_shape), np.zeros(kernel.geometry.weight_shape), []


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["transposed and grouped", "pointwise", "depthwise", "more rows than a block"])
@pytest.mark.usefixtures("guarded_memory")
def test_what_is_not_finite_reaches_its_outputs_only(backend: CpuBackend, name: str, value: float):
    kernel = CASES[name]
    rng = np.random.default_rng(0)
    numbers = random_numbers(rng, kernel)
    for position in rng.integers(0, kernel.geometry.in_shape, (3, len(kernel.geometry.in_shape))):
        numbers.x[tuple(position)] = value
    (want,) = reference.results(kernel, numbers.x, numbers.w, [])
    (got,) = run(backend, kernel, schedule_of(backend, kernel), numbers.x, numbers.w, [])
    assert 0 < np.isfinite(want).sum() < want.size
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    np.testing.assert_array_equal(np.isinf(got) * np.sign(got), np.isinf(want) * np.sign(want))


BROADCASTS = [(1, 1, 1, 1), (1, 1, 1, 20), (1, 6, 5, 1), (3, 1, 1, 20), (3, 6, 5, 20), (1, 6, 1, 20), (3, 1, 5, 1)]


@pytest.mark.usefixtures("guarded_memory")
def test_extras_broadcast_along_any_axis(backend: CpuBackend):
    extras = tuple(Extra(shape, "f32") for shape in BROADCASTS)
    results = tuple(range(1, len(extras) + 1))
    kernel = Kernel(
        Geometry.of_shapes((3, 6, 5, 4), (20, 1, 1, 4), plain_window(2)),
        "f32",
        extras,
        Epilogue(("f32",) * (len(extras) + 1), (), (0, *results)),
        ("f32",) * (len(extras) + 1),
    )
    numbers = random_numbers(np.random.default_rng(0), kernel)
    _, *got = run(backend, kernel, schedule_of(backend, kernel), numbers.x, numbers.w, numbers.extras)
    for broadcast, extra in zip(got, numbers.extras, strict=True):
        np.testing.assert_array_equal(broadcast, np.broadcast_to(extra, kernel.geometry.out_shape))


def test_kernels_of_any_batch_share_their_text(backend: CpuBackend):
    residual = Epilogue(("f32", "f32"), (Instruction("arith.addf", (0, 1), "f32"),), (2,))

    def kernel(batch: int) -> Kernel:
        geometry = Geometry.of_shapes((batch, 6, 6, 4), (8, 3, 3, 4), plain_window(2))
        return Kernel(geometry, "f32", (Extra(geometry.out_shape, "f32"),), residual, ("f32",))

    texts = {backend.source(kernel(n), schedule_of(backend, kernel(n))) for n in (1, 2, 5)}
    assert len(texts) == 1
