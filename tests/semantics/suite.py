"""Cases of MLX's own convolution tests: run compiled, with no convolution left plain, and judged by definitions in
float64. A gradient is judged as what it is, the adjoint: <cotangent, conv(dx, w)> = <gradient of x, dx> for any dx."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import mlx.core as mx
import numpy as np
from checks import fast_of
from test_convolutions import as_tuples, definition

TOLERANCE = {mx.float32: 1e-5, mx.float16: 2e-3, mx.bfloat16: 1.6e-2}


@dataclass(frozen=True)
class Case:
    """A call of one of MLX's functions: its name, the shapes of input and weight, the other arguments."""

    function: str
    x: tuple[int, ...]
    w: tuple[int, ...]
    arguments: dict[str, Any] = field(default_factory=dict)

    @property
    def rank(self) -> int:
        return len(self.x) - 2

    def call(self, x: mx.array, w: mx.array) -> mx.array:
        return getattr(mx, self.function)(x, w, **self.arguments)

    def reference(self, x: np.ndarray, w: np.ndarray) -> np.ndarray:
        if "transpose" in self.function:
            return spread_out(x, w, **self.arguments)
        renamed = {"kernel_dilation" if k == "dilation" else k: v for k, v in self.arguments.items()}
        return definition(x, w, **as_tuples(self.rank, renamed))

    def random(self, *shape: int, what: str) -> np.ndarray:
        """Float32 numbers that depend on the case and on what they are for."""
        seed = zlib.crc32(f"{self} {what}".encode())
        return np.random.default_rng(seed).normal(size=shape or getattr(self, what)).astype(np.float32)


def ints(value: Any, rank: int) -> tuple[int, ...]:
    return (value,) * rank if isinstance(value, int) else tuple(value)


def spread_out(x, w, stride=1, padding=0, dilation=1, output_padding=0, groups=1) -> np.ndarray:
    """A transposed convolution by its definition, every input element times the kernel:
    y[i * stride + k * dilation - padding] += x[i] w[k]."""
    x, w, rank = np.asarray(x, np.float64), np.asarray(w, np.float64), x.ndim - 2
    stride, padding, dilation, extra = (ints(v, rank) for v in (stride, padding, dilation, output_padding))
    axes = list(zip(x.shape[1:-1], w.shape[1:-1], stride, padding, dilation, extra, strict=True))
    y = np.zeros((x.shape[0], *((n - 1) * s + d * (k - 1) + 1 + e for n, k, s, _, d, e in axes), w.shape[0]))
    inputs, outputs = w.shape[-1], w.shape[0] // groups
    for taps in product(*map(range, w.shape[1:-1])):
        places = (slice(t * d, t * d + (n - 1) * s + 1, s) for t, (n, _, s, _, d, _) in zip(taps, axes, strict=True))
        reached = y[(slice(None), *places)]
        for g in range(groups):
            filters = slice(g * outputs, (g + 1) * outputs)
            reached[..., filters] += x[..., g * inputs : (g + 1) * inputs] @ w[(filters, *taps)].T
    return y[(slice(None), *(slice(p, n - p) for p, n in zip(padding, y.shape[1:-1], strict=True)))]


def assert_close(actual: mx.array, reference: np.ndarray, what: object) -> None:
    assert actual.shape == reference.shape, what
    values, tolerance = np.array(actual.astype(mx.float32)), TOLERANCE[actual.dtype]
    np.testing.assert_allclose(
        values, reference, rtol=tolerance, atol=tolerance * np.abs(reference).max(), err_msg=str(what)
    )


def check(cases: Iterable[Case], dtype: mx.Dtype = mx.float32, **options: Any) -> None:
    """Compile all cases as one function and compare each result with its definition."""
    cases = list(cases)
    arrays = [mx.array(case.random(what=what)).astype(dtype) for case in cases for what in "xw"]

    def function(*arrays: mx.array) -> list[mx.array]:
        return [case.call(*arrays[2 * n : 2 * n + 2]) for n, case in enumerate(cases)]

    results = fast_of(function, **options)(*arrays)
    for n, (case, result) in enumerate(zip(cases, results, strict=True)):
        assert result.dtype == dtype
        x, w = (np.array(a.astype(mx.float32)) for a in arrays[2 * n : 2 * n + 2])
        assert_close(result, case.reference(x, w), case)


def check_gradients(cases: Iterable[Case], of: str = "xw") -> None:
    """The gradients of each case, compiled, with respect to its input "x" and its weight "w"."""
    for case in cases:
        primals = [case.random(what="x"), case.random(what="w")]
        cotangent = case.random(*case.reference(*primals).shape, what="cotangent")
        _, gradients = mx.vjp(fast_of(case.call), [mx.array(p) for p in primals], [mx.array(cotangent)])
        for n, (what, gradient) in enumerate(zip("xw", gradients, strict=True)):
            if what not in of:
                continue
            assert gradient.shape == primals[n].shape, case
            direction = case.random(*gradient.shape, what="direction")
            change = case.reference(*(direction if n == k else p for k, p in enumerate(primals)))
            got, want = inner(np.array(gradient), direction), inner(cotangent, change)
            assert abs(got - want) <= 1e-5 * np.linalg.norm(gradient) * np.linalg.norm(direction), (case, what)


def inner(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.vdot(a.astype(np.float64), b.astype(np.float64)))
