"""Fixtures of the CPU kernels' tests."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt
import pytest
from harness import Guarded, to_storage

from convjit.backends.cpu import CpuBackend, footprint, packing, stretch


@pytest.fixture(scope="session")
def backend() -> CpuBackend:
    return CpuBackend()


@pytest.fixture(params=["after", "before"])
def guarded_memory(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    """Every array of a stretch lies before (or after) a forbidden page; outputs are NaN until they are written."""
    at_end = request.param == "after"
    used: list[Guarded] = []

    def guard(array: npt.NDArray[np.generic]) -> Guarded:
        used.append(Guarded(array, at_end))
        return used[-1]

    def borrow(array: npt.NDArray[np.generic]) -> tuple[int, object]:
        guarded = guard(array)
        return guarded.address, guarded

    def new_array(shape: tuple[int, ...], dtype: str) -> tuple[int, Callable[[], npt.NDArray[np.generic]]]:
        guarded = guard(to_storage(np.full(shape, np.nan), dtype))
        return guarded.address, lambda: guarded.array.copy()

    monkeypatch.setattr(stretch, "borrow", borrow)
    for module in (stretch, packing):
        monkeypatch.setattr(module, "Recycler", lambda shape, dtype, _: partial(new_array, shape, dtype))
    monkeypatch.setattr(packing, "borrow", lambda array: borrow(np.array(array)))
    monkeypatch.setattr(packing, "aligned_array", new_array)
    monkeypatch.setattr(footprint, "useful_threads", lambda kernel: 64)  # small kernels use all threads, too
