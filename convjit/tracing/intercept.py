"""Calls of MLX's convolution functions on their way: a thread may see and change its own, in place of `mx.conv2d` & co.

A function that bound a name early, by `from mlx.core import conv2d`, calls MLX directly and is not seen here.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx

FUNCTIONS = (
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_general",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "convolve",
)

Handler = Callable[[str, Callable[..., mx.array], tuple[Any, ...], dict[str, Any]], mx.array]
"""(name, the function of MLX, its positional and its keyword arguments) -> what the call returns."""


class _Handlers(threading.local):
    """The handlers of this thread, outermost first."""

    def __init__(self) -> None:
        self.stack: list[Handler] = []


_handlers = _Handlers()
_lock = threading.Lock()
_depth = 0
_originals: dict[str, Callable[..., mx.array]] = {}


def _intercepted(name: str, original: Callable[..., mx.array]) -> Callable[..., mx.array]:
    """`original`, by way of the innermost handler in threads that have one, untouched in all others."""

    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> mx.array:
        stack = _handlers.stack
        return stack[-1](name, original, args, kwargs) if stack else original(*args, **kwargs)

    return call


@contextmanager
def convolutions_intercepted(handler: Handler) -> Generator[None]:
    """While this is entered, `handler` answers this thread's calls of MLX's convolution functions.

    May be nested: the innermost handler answers. May be entered in several threads at once.
    """
    global _depth
    with _lock:
        if _depth == 0:
            for name in FUNCTIONS:
                _originals[name] = getattr(mx, name)
                setattr(mx, name, _intercepted(name, _originals[name]))
        _depth += 1
    _handlers.stack.append(handler)
    try:
        yield
    finally:
        _handlers.stack.pop()
        with _lock:
            _depth -= 1
            if _depth == 0:
                for name, original in _originals.items():
                    setattr(mx, name, original)
