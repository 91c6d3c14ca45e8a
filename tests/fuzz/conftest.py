"""How the random programs are run: kernels show all that they do wrong."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

import mlx.core as mx
import numpy as np
import pytest
from harness import Guarded, to_storage

from convjit.backends import MLX_DTYPES
from convjit.backends.cpu import CpuBackend, footprint, memory, packing, stretch, toolchain


@pytest.fixture(scope="module", autouse=True)
def strict(tmp_path_factory: pytest.TempPathFactory):
    """Kernels run on all threads, however small they are, and without the proof that would replace wrong ones. They are
    compiled with FUZZ_OPTIMIZE, such as -Og, which is three times as quick; by default as always."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONVJIT_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(footprint, "useful_threads", lambda kernel: 64)
        patch.setattr(CpuBackend, "needs_proof", False)
        if level := os.environ.get("FUZZ_OPTIMIZE"):
            patch.setattr(toolchain, "FLAGS", (level, *toolchain.FLAGS[1:]))
        yield


@pytest.fixture
def guard_memory(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """A function after which all that kernels read and write ends before a forbidden page, or begins behind one;
    results are NaN until they are written."""

    def guard(at_end: bool) -> None:
        def borrow(array: mx.array) -> tuple[int, object]:
            bits = array.view(mx.uint16) if array.dtype == mx.bfloat16 else array
            guarded = Guarded(np.array(bits), at_end)
            return guarded.address, guarded

        def new_array(shape: tuple[int, ...], dtype: str) -> memory.Allocation:
            guarded = Guarded(to_storage(np.full(shape, np.nan), dtype), at_end)

            def finished() -> mx.array:
                array = mx.array(guarded.array)
                return array.view(MLX_DTYPES[dtype]) if dtype == "bf16" else array

            return guarded.address, finished

        for module in (stretch, packing):
            monkeypatch.setattr(module, "borrow", borrow)
            monkeypatch.setattr(module, "Recycler", lambda shape, dtype, _: partial(new_array, shape, dtype))
        monkeypatch.setattr(packing, "aligned_array", new_array)

    return guard
