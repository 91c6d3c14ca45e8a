"""A kernel by MLX's own ops gives what the kernel does."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

import convjit
from convjit import proof
from convjit.backends import registry
from convjit.proof import check
from convjit.tuning import plain
from examples.models import SMALL, ready


def hard_swish_of_both_signs(x: mx.array, w: mx.array) -> mx.array:
    """Comparisons, selections, constants and logic."""
    y = mx.conv2d(x, w)
    inside = mx.logical_and(y > -0.5, mx.logical_not(y == 3.0))
    return mx.where(inside, nn.hardswish(y), mx.sin(y)) + inside.astype(mx.float32)


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16])
@pytest.mark.parametrize("name", [*SMALL, "hard_swish"])
def test_as_the_kernel(name: str, dtype: mx.Dtype) -> None:
    if name == "hard_swish":
        fast = convjit.compile(hard_swish_of_both_signs, fallback="error")
        fast(mx.zeros((1, 5, 5, 4), dtype), mx.zeros((3, 2, 2, 4), dtype))
    else:
        make, shape = SMALL[name]
        model = ready(make())
        model.set_dtype(dtype)
        fast = convjit.compile(model, fallback="error")
        fast(mx.zeros(shape, dtype))
    backend = registry.get("cpu")
    for _, kernel, schedule in convjit.inspect.kernels(fast):
        arrays = check.inputs(kernel, np.random.default_rng(1))
        ours = proof.runner(backend, kernel, schedule)(arrays)
        for y, theirs in zip(ours, plain.function(kernel)(arrays), strict=True):
            assert y.dtype == theirs.dtype
            assert mx.allclose(y, theirs, rtol=1e-2, atol=1e-2 if dtype == mx.float16 else 1e-5)
