"""Kernels in half types: what steps at a number, and casts, see what other ops of the program see."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import numpy as np
import pytest

import convjit
from convjit.backends.cpu import CpuBackend

TINY, LARGE = 1e-4, 200.0
"""Of input and weight: many sums are 0 in float16, or infinite."""

STEPS: dict[str, tuple[float, Callable[[mx.array], mx.array]]] = {
    "above 0": (TINY, lambda y: (y > 0).astype(mx.float32)),
    "below 0": (TINY, lambda y: mx.where(y < 0, y - 1, y)),
    "at least 3": (1, lambda y: (y >= 3).astype(mx.float32)),
    "less than 3": (1, lambda y: mx.where(y < 3, y * 0, y)),
    "sign": (TINY, mx.sign),
    "ceil": (TINY, mx.ceil),
    "floor": (1, lambda y: mx.floor(y * 1.0)),
    "round": (2**-0.5, mx.round),
    "true": (TINY, lambda y: mx.where(y, mx.array(1.0, y.dtype), mx.array(2.0, y.dtype))),
    "the maximum": (1, lambda y: y.astype(mx.float32) == mx.max(y, -1, keepdims=True).astype(mx.float32)),
    "infinite": (LARGE, lambda y: mx.isinf(y.astype(mx.float32))),
    "a wider minimum": (LARGE, lambda y: mx.minimum(y.astype(mx.float32), 1e6)),
    "another type": (1, lambda y: y.astype(mx.bfloat16 if y.dtype == mx.float16 else mx.float16)),
}


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16], ids=str)
@pytest.mark.parametrize("name", STEPS)
def test_steps_see_numbers_as_arrays_hold_them(name: str, dtype: mx.Dtype, monkeypatch: pytest.MonkeyPatch):
    """The result beside them tells which those are. Around 3 there are whole numbers that sums only almost are."""
    monkeypatch.setattr(CpuBackend, "needs_proof", False)
    scale, step = STEPS[name]
    rng = np.random.default_rng(3)
    x = scale * rng.choice([1, 3, 1 + 2**-9], (2, 5, 5, 8)) * rng.choice([1, 1, -1], (2, 5, 5, 8))
    x, w = (mx.array(a).astype(dtype) for a in (x, scale * rng.choice([1, -(2**-9), 0, 0], (8, 1, 1, 8))))

    def function(x: mx.array, w: mx.array) -> list[mx.array]:
        y = mx.conv2d(x, w)
        return [y, step(y)]

    fast = convjit.compile(function, backend="cpu", fallback="error")
    y, got = fast(x, w)
    np.testing.assert_array_equal(got.astype(mx.float32), step(y).astype(mx.float32))
    assert convjit.inspect.ir(fast).partition("@forward")[2].count("conv.elementwise") == 0
