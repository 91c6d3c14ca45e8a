"""Is a transformation under way: grad, vmap, jvp, compile, export, or a capture of our own?"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Any

import mlx.core as mx


class _Probe:
    """A compiled identity re-enters Python only when its input is a tracer.

    It also does when compilation is off or there is no compiler, so a hit is confirmed by the slow way: a tracer
    cannot be evaluated.
    """

    def __init__(self) -> None:
        self._local = threading.local()

    def __call__(self, arrays: Iterable[mx.array]) -> bool:
        return any(map(self._is_tracer, arrays))

    def _is_tracer(self, array: mx.array) -> bool:
        local = self._local
        if not hasattr(local, "identity"):
            local.warm = set()
            local.hit = False
            local.identity = mx.compile(self._identity, shapeless=True)
        kind = (array.ndim, array.dtype)
        if kind not in local.warm:
            local.identity(mx.zeros((1,) * array.ndim, array.dtype))
            local.warm.add(kind)
        local.hit = False
        local.identity(array)
        return local.hit and _refuses_evaluation(array)

    def _identity(self, array: mx.array) -> mx.array:
        self._local.hit = True
        return array


def _refuses_evaluation(array: mx.array) -> bool:
    try:
        mx.async_eval(mx.stop_gradient(array))
    except ValueError:
        return True
    return False


any_tracer: Callable[[Iterable[mx.array]], bool] = _Probe()
"""Is there a tracer among these arrays? 1 us an array, without evaluating it."""


def can_evaluate(arrays: Iterable[mx.array]) -> bool:
    """Evaluate these arrays; no if there is a tracer without a value among them, as under `vmap` and `compile`."""
    try:
        mx.eval(*arrays)
    except ValueError:
        return False
    return True


_export_only: Any = None


def exporting() -> bool:
    """Is `mx.export_function` at work in this thread? Told by a Metal kernel, which MLX lets nobody else make where
    there is no Metal; so the answer is no on a Mac."""
    global _export_only
    if mx.metal.is_available():
        return False
    if _export_only is None:
        _export_only = mx.fast.metal_kernel("export_only", [], ["y"], "y[0] = 0;")
    try:
        _export_only(inputs=[], grid=(1, 1, 1), threadgroup=(1, 1, 1), output_shapes=[(1,)], output_dtypes=[mx.float32])
    except RuntimeError:
        return False
    return True


_thread = threading.local()


def capturing() -> bool:
    """Is this thread inside a capture? Compiled functions run plain there, so that the outermost one sees it all."""
    return getattr(_thread, "depth", 0) > 0


@contextmanager
def capture_in_progress() -> Generator[None]:
    """While this is entered, `capturing` is true in this thread."""
    _thread.depth = getattr(_thread, "depth", 0) + 1
    try:
        yield
    finally:
        _thread.depth -= 1
