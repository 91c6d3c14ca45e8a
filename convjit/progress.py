"""A line on the terminal while kernels compile, where there is a terminal and it takes a while."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

_PATIENCE = 1.0
"""Seconds of silence before the line appears."""


@contextmanager
def kernel_progress(name: str) -> Generator[Callable[[int, int], None]]:
    """Yields `progress(done, total)`; the line is wiped at the end."""
    start = time.monotonic()
    shown = False

    def progress(done: int, total: int) -> None:
        nonlocal shown
        if sys.stderr.isatty() and time.monotonic() - start > _PATIENCE:
            shown = True
            sys.stderr.write(f"\r\x1b[Kconvjit: {name}: compiled {done} of {total} kernels")
            sys.stderr.flush()

    try:
        yield progress
    finally:
        if shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
