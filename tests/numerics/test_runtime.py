"""Stretches on real MLX arrays: memory, threads, processes, and what a kernel must leave alone."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import reference
from harness import alone, schedule_of
from sample import random_numbers

from convjit.backends import Call, Runner, Stretch
from convjit.backends.cpu import CpuBackend
from convjit.backends.cpu.stretch import arena_offsets
from convjit.geometry import Geometry, Window, plain_window
from convjit.kernel import Epilogue, Extra, Instruction, Kernel, identity_epilogue

SAME = Window((1, 1), (1, 1), (1, 1), (1, 1), (1, 1))
RESIDUAL = Epilogue(("f32", "f32"), (Instruction("arith.addf", (0, 1), "f32"),), (2,))


def bare(size: int = 12, channels: int = 16, batch: int = 1, dtype: str = "f32") -> Kernel:
    geometry = Geometry.of_shapes((batch, size, size, channels), (channels, 3, 3, channels), SAME)
    return Kernel(geometry, dtype, (), identity_epilogue(dtype), (dtype,))


def residual(size: int = 12, channels: int = 16) -> Kernel:
    kernel = bare(size, channels)
    return Kernel(kernel.geometry, "f32", (Extra(kernel.geometry.out_shape, "f32"),), RESIDUAL, ("f32",))


def prepared(backend: CpuBackend, kernel: Kernel, seed: int = 0) -> tuple[Runner, list[mx.array], reference.Array]:
    """A kernel alone, arrays for it, and its first result."""
    numbers = random_numbers(np.random.default_rng(seed), kernel)
    schedule = schedule_of(backend, kernel)
    dtypes = {"f32": mx.float32, "f16": mx.float16, "bf16": mx.bfloat16}
    weight = mx.array(numbers.w.astype(np.float32)).astype(dtypes[kernel.dtype])
    arrays = [
        mx.array(numbers.x.astype(np.float32)).astype(dtypes[kernel.dtype]),
        backend.pack(kernel.geometry.window, schedule, weight),
        *(
            mx.array(v.astype(np.float32)).astype(dtypes[e.dtype])
            for v, e in zip(numbers.extras, kernel.extras, strict=True)
        ),
    ]
    mx.eval(arrays)
    expected = reference.results(kernel, numbers.x, numbers.w, numbers.extras)[0]
    return alone(backend, kernel, schedule), arrays, expected


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("size", [5, 150])
def test_results_are_new_arrays_of_the_right_type(backend: CpuBackend, dtype: str, size: int):
    """Small results are copied, large ones are written in place."""
    run, arrays, expected = prepared(backend, bare(size, dtype=dtype))
    first, second = run(arrays)[0], run(arrays)[0]
    assert first.dtype == arrays[0].dtype and first.shape == expected.shape
    kept = np.array(first.astype(mx.float32))
    np.testing.assert_allclose(kept, expected, atol={"f32": 1e-4, "f16": 0.05, "bf16": 0.4}[dtype])
    second += 1
    mx.eval(second)
    del second
    run(arrays)
    np.testing.assert_array_equal(np.array(first.astype(mx.float32)), kept)


def test_inputs_may_be_views_lazy_or_transposed(backend: CpuBackend):
    run, (x, packed), expected = prepared(backend, bare())
    for same in (
        mx.concatenate([mx.zeros_like(x), x])[1:],
        (x * 2) / 2,
        mx.contiguous(x.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1),
    ):
        np.testing.assert_allclose(np.array(run([same, packed])[0]), expected, atol=1e-4)


def test_an_input_of_the_wrong_size_is_refused(backend: CpuBackend):
    run, (x, packed), _ = prepared(backend, bare())
    with pytest.raises(ValueError, match=r"input 0 of a stretch holds 9216 bytes, got shape \(1, 12, 12, 15\)"):
        run([x[..., :15], packed])
    with pytest.raises(ValueError, match="input 1"):
        run([x, packed[:-1]])


def test_values_in_the_arena_never_overlap_while_they_live():
    rng = np.random.default_rng(0)
    for _ in range(50):
        lifetimes = [(int(a), int(a + rng.integers(0, 4))) for a in rng.integers(0, 10, 12)]
        sizes = [int(s) for s in rng.integers(1, 1000, 12)]
        offsets, total = arena_offsets(lifetimes, sizes)
        assert all(o % 64 == 0 for o in offsets)
        for a in range(12):
            assert offsets[a] + sizes[a] <= total
            for b in range(a):
                alive_together = lifetimes[a][0] <= lifetimes[b][1] and lifetimes[b][0] <= lifetimes[a][1]
                apart = offsets[a] + sizes[a] <= offsets[b] or offsets[b] + sizes[b] <= offsets[a]
                assert apart or not alive_together
    assert arena_offsets([(0, 1), (1, 2), (2, 3)], [640, 640, 640])[1] == 1280


def chain(backend: CpuBackend, length: int) -> tuple[Stretch, list[mx.array], reference.Array]:
    """x -> conv -> conv + x -> conv + ...: each step reads the two values before it."""
    first, second = bare(), residual()
    rng = np.random.default_rng(3)
    x = rng.standard_normal(first.geometry.in_shape)
    w = rng.standard_normal(first.geometry.weight_shape) / 12
    before, value = x, reference.results(first, x, w, [])[0]
    calls = [Call(first, schedule_of(backend, first), (0, 1), (2,))]
    for step in range(1, length):
        inputs = (step + 1, 1, step if step > 1 else 0)
        calls.append(Call(second, schedule_of(backend, second), inputs, (step + 2,)))
        before, value = value, reference.results(second, value, w, [before])[0]
    packed = backend.pack(SAME, schedule_of(backend, first), mx.array(w.astype(np.float32)))
    outputs = (length + 1, 0, length + 1, 3)
    return Stretch(2, tuple(calls), outputs), [mx.array(x.astype(np.float32)), packed], value


def test_stretch_of_many_kernels(backend: CpuBackend):
    stretch, arrays, expected = chain(backend, 9)
    run = backend.load(stretch)
    last, x, again, third = run(arrays)
    np.testing.assert_allclose(np.array(last), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_array_equal(np.array(x), np.array(arrays[0]))
    np.testing.assert_array_equal(np.array(again), np.array(last))
    assert third.shape == last.shape and not np.array_equal(np.array(third), np.array(last))


def test_threads_of_python_run_at_once(backend: CpuBackend):
    run, arrays, _ = prepared(backend, bare(100, 32))  # large enough to be written in place
    stretch, chained, expected = chain(backend, 5)
    run_chain = backend.load(stretch)
    want = np.array(run(arrays)[0])
    together = threading.Barrier(3)

    def work(_: int) -> bool:
        together.wait(timeout=30)
        good = True
        for _ in range(30):
            good &= np.array_equal(np.array(run(arrays)[0]), want)
            good &= bool(np.allclose(np.array(run_chain(chained)[0]), expected, atol=1e-3))
        return good

    with ThreadPoolExecutor(3) as pool:
        assert all(pool.map(work, range(3)))


def test_an_input_updated_in_place_meanwhile(backend: CpuBackend, monkeypatch: pytest.MonkeyPatch):
    """While a kernel runs, another thread of Python may reuse the memory of its input, as MLX does for `x += 1`."""
    run, (x, packed), expected = prepared(backend, bare())
    really_run = backend._runtime.run

    def update_and_run(*arguments: object) -> int:
        nonlocal x
        for _ in range(3):
            x += 1
            mx.eval(x)
        return really_run(*arguments)

    monkeypatch.setattr(backend._runtime, "run", update_and_run)
    np.testing.assert_allclose(np.array(run([x, packed])[0]), expected, atol=1e-4)


def test_memory_does_not_grow(backend: CpuBackend):
    run, arrays, _ = prepared(backend, bare(100, 32))

    def resident() -> int:
        gc.collect()
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    if not Path("/proc/self/statm").exists():
        pytest.skip("needs Linux")
    for _ in range(20):
        run(arrays)
    before = resident()
    for _ in range(200):
        run(arrays)
    assert resident() - before < 40 * arrays[0].nbytes


THREADS = """
import hashlib, sys
sys.path.insert(0, {folder!r})
import numpy as np
from convjit.backends.cpu import CpuBackend
from convjit.schedule import cpu
from test_runtime import bare, chain, prepared, residual
cpu.FLOPS_PER_THREAD = 1
backend = CpuBackend()
digest = hashlib.sha256()
for kernel in (bare(), bare(30, 70), bare(7, 130, batch=2), residual()):
    run, arrays, _ = prepared(backend, kernel)
    digest.update(np.array(run(arrays)[0]).tobytes())
print(backend._runtime.threads, digest.hexdigest())
"""


def test_number_of_threads_changes_no_bit():
    outputs: list[list[str]] = []
    for threads in ("1", "2", "3"):
        script = THREADS.format(folder=str(Path(__file__).parent))
        environment = {**os.environ, "CONVJIT_NUM_THREADS": threads, "PYTHONPATH": str(Path(__file__).parents[2])}
        done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout.split())
    assert [o[0] for o in outputs] == ["1", "2", "3"]
    assert len({o[1] for o in outputs}) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.usefixtures("guarded_memory")
def test_forked_child_runs_kernels(backend: CpuBackend):
    """No thread of the pool lives on in a child; MLX itself is not used there."""
    kernel = bare(40, 32)
    numbers = random_numbers(np.random.default_rng(0), kernel)
    schedule = schedule_of(backend, kernel)
    packed = backend.pack(SAME, schedule, mx.array(numbers.w.astype(np.float32)))
    run = alone(backend, kernel, schedule)
    arrays = [numbers.x.astype(np.float32), packed]
    expected = run(arrays)[0]
    child = os.fork()
    if child == 0:
        good = all(np.array_equal(run(arrays)[0], expected) for _ in range(20))
        os._exit(0 if good else 1)
    deadline = threading.Timer(20, os.kill, (child, 9))
    deadline.start()
    _, status = os.waitpid(child, 0)
    deadline.cancel()
    assert status == 0
    np.testing.assert_array_equal(run(arrays)[0], expected)


def test_subnormal_numbers_survive(backend: CpuBackend):
    """A library linked with -ffast-math would make this process, and the kernels, flush them to zero."""
    tiny = np.array([1e-40], np.float32)
    kernel = Kernel(
        Geometry.of_shapes((1, 3, 1), (1, 1, 1), plain_window(1)), "f32", (), identity_epilogue("f32"), ("f32",)
    )
    schedule = schedule_of(backend, kernel)
    packed = backend.pack(kernel.geometry.window, schedule, mx.ones((1, 1, 1)))
    (y,) = alone(backend, kernel, schedule)([mx.full((1, 3, 1), 1e-40), packed])
    np.testing.assert_array_equal(np.array(y).ravel(), np.repeat(tiny, 3))
    assert (tiny * np.float32(0.5))[0] != 0
    assert (np.ones(1, np.float32) * tiny)[0] == tiny[0]
