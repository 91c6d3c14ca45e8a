"""Results are written again only once nobody holds them any more."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt
import pytest

from convjit.backends.cpu import CpuBackend, descriptors, memory, recycled
from convjit.backends.cpu.recycled import Recycler

SHAPE = (3, 40, 50)

pytestmark = pytest.mark.skipif(descriptors.layout() is None, reason="needs MLX's counts of owners")

HOLDERS: dict[str, Callable[[mx.array], Any]] = {
    "the array": lambda a: a,
    "a NumPy view": lambda a: np.array(a, copy=False),
    "a memoryview": memoryview,
    "DLPack": np.from_dlpack,
    "a view": lambda a: evaluated(a[1:, 2:]),
    "a view of another type": lambda a: evaluated(a.view(mx.int32)),
    "a view that is not evaluated": lambda a: a.reshape(-1),
    "a graph": lambda a: a * 1.0,
    "a gradient's graph": lambda a: mx.grad(lambda x: (x * a * a).sum())(mx.ones(SHAPE)) ** 0.5,
    "a container": lambda a: {"a": [a]},
}


def evaluated(array: mx.array) -> mx.array:
    mx.eval(array)
    return array


def recycler(backend: CpuBackend, dtype: str = "f32") -> Recycler:
    return Recycler(SHAPE, dtype, backend._runtime.quick)


def filled(results: Recycler, value: float) -> mx.array:
    """What a kernel does: write all elements, then have the array."""
    address, finished = results()
    memory_at(address)[:] = value
    return finished()


def memory_at(address: int) -> npt.NDArray[np.float32]:
    size = int(np.prod(SHAPE))
    return np.ctypeslib.as_array(ctypes.cast(address, ctypes.POINTER(ctypes.c_float)), (size,))


def numbers(held: Any) -> set[float]:
    while isinstance(held, (dict, list)):
        held = next(iter(held.values() if isinstance(held, dict) else held))
    values = np.array(held)
    return set(np.unique(values.view(np.float32) if values.dtype == np.int32 else values).tolist())


@pytest.mark.parametrize("holder", HOLDERS)
def test_what_somebody_holds_is_not_written(backend: CpuBackend, holder: str):
    results = recycler(backend)
    filled(results, 0.0)
    held = HOLDERS[holder](filled(results, 7.0))
    for value in range(10, 20):
        assert numbers(filled(results, value)) == {value}
    assert numbers(held) == {7.0}


def test_what_nobody_holds_is_written_again(backend: CpuBackend):
    results = recycler(backend)
    assert len({memory.address_of(filled(results, value)) for value in range(20)}) == 1


def test_the_result_before_may_still_be_held(backend: CpuBackend):
    results = recycler(backend)
    addresses: set[int] = set()
    result = filled(results, 0.0)
    for value in range(1, 20):
        result, before = filled(results, value), result
        addresses.add(memory.address_of(result))
        assert (numbers(result), numbers(before)) == ({value}, {value - 1})
        del before
    assert len(addresses) == 2


def test_work_that_is_not_finished_counts(backend: CpuBackend):
    results = recycler(backend)
    filled(results, 1.0)
    for value in range(10):
        result = filled(results, value)
        later = mx.sin(mx.cos(result)) + 0 * mx.matmul(mx.ones((300, 600)), mx.ones((600, 300))).sum() + result
        mx.async_eval(later)
        del result
        filled(results, 100.0)
        np.testing.assert_allclose(np.array(later), np.sin(np.cos(value)) + value, rtol=1e-5)


def test_updates_in_place_are_the_users_own(backend: CpuBackend):
    results = recycler(backend)
    filled(results, 0.0)
    result = filled(results, 3.0)
    result[0] = 5.0
    other = filled(results, 4.0)
    assert numbers(result) == {3.0, 5.0}
    result += 1
    assert (numbers(filled(results, 9.0)), numbers(other), numbers(result)) == ({9.0}, {4.0}, {4.0, 6.0})


def test_a_user_who_keeps_everything(backend: CpuBackend):
    results = recycler(backend)
    kept = [filled(results, value) for value in range(60)]
    assert [numbers(array) for array in kept] == [{float(value)} for value in range(60)]
    del kept
    addresses = {memory.address_of(filled(results, value)) for value in range(20)}
    assert len(addresses) <= 2  # those of the last results, not of the first


def test_threads(backend: CpuBackend):
    results = recycler(backend)
    together = threading.Barrier(4)

    def work(number: int) -> bool:
        together.wait(timeout=30)
        held = [filled(results, number)]
        good = True
        for turn in range(300):
            held.append(filled(results, number + 10 * turn))
            good &= numbers(held[0]) == {number + 10 * max(0, turn - 1)} or turn == 0
            held = held[-1:]
        return good

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))


def test_what_a_failed_call_left_is_written_again(backend: CpuBackend):
    results = recycler(backend)
    for _ in range(40):
        results()  # and then an interruption
    addresses = {memory.address_of(filled(results, value)) for value in range(20)}
    assert len(addresses) == 1
    results.forget()
    assert results.held_bytes() == 0


def test_recyclers_made_while_others_make_room(backend: CpuBackend):
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(3) as pool:
            making = [pool.submit(lambda: [recycler(backend) for _ in range(3000)]) for _ in range(2)]
            while not all(future.done() for future in making):
                recycled._make_room(1)
            for future in making:
                future.result()
    finally:
        sys.setswitchinterval(before)


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
def test_kept_results_begin_with_a_line_of_the_cache(backend: CpuBackend, dtype: str):
    address, finished = recycler(backend, dtype)()
    array = finished()
    assert address % 64 == 0 and memory.address_of(array) == address
    assert array.shape == SHAPE and array.dtype == memory.MLX_DTYPES[dtype]


def test_nothing_is_counted_far_below_the_budget(backend: CpuBackend, monkeypatch: pytest.MonkeyPatch):
    """A program of a thousand results would otherwise take a second more for its first two calls."""
    counted: list[Recycler] = []
    monkeypatch.setattr(recycled, "_held_at_most", 0)
    monkeypatch.setattr(Recycler, "held_bytes", lambda r: counted.append(r) or 0)
    for value in range(20):
        filled(recycler(backend), value)
    assert not counted


def test_the_budget(backend: CpuBackend, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(recycled, "_recyclers", recycled._recyclers.__class__())
    monkeypatch.setattr(recycled, "_BUDGET", 5 * 4 * int(np.prod(SHAPE)))
    all_results = [recycler(backend) for _ in range(8)]
    for results in all_results:
        pair = [filled(results, value) for value in (1.0, 2.0)]
        assert [numbers(array) for array in pair] == [{1.0}, {2.0}]
        assert sum(r.held_bytes() for r in all_results) <= recycled._BUDGET
    assert [bool(r.held_bytes()) for r in all_results] == [False] * 6 + [True] * 2
    monkeypatch.setattr(recycled, "_BUDGET", 1)
    large = recycler(backend)
    assert numbers(filled(large, 3.0)) == {3.0} and large.held_bytes() == 0


def test_without_counts(backend: CpuBackend, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(recycled, "use_counts", lambda array: None)
    results = recycler(backend)
    kept = [filled(results, value) for value in range(5)]
    assert [numbers(array) for array in kept] == [{float(value)} for value in range(5)]
    assert results.held_bytes() == 0
