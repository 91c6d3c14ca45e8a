"""A line on the terminal while kernels compile, where there is a terminal and it takes a while."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

_PATIENCE = 1.0
"""Seconds of silence before the line appears."""


@contextmanager
def kernel_progress(name: str) -> Generator[Callable[[int, int], None]]:
    """Yields `progress(done, total)`. The line comes up even if no kernel is done yet, and is wiped at the end."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    line = _Line(f"convjit: {name}: compiling")
    timer = threading.Timer(_PATIENCE, line.show)
    timer.daemon = True
    timer.start()
    try:
        yield lambda done, total: line.change(f"convjit: {name}: compiled {done} of {total} kernels")
    finally:
        timer.cancel()
        timer.join()
        line.wipe()


class _Line:
    """A line of text on the terminal, not shown at first."""

    def __init__(self, text: str):
        self._text = text
        self._shown = False
        self._lock = threading.Lock()

    def show(self) -> None:
        with self._lock:
            self._shown = True
            self._draw(self._text)

    def change(self, text: str) -> None:
        with self._lock:
            self._text = text
            if self._shown:
                self._draw(text)

    def wipe(self) -> None:
        with self._lock:
            if self._shown:
                self._draw("")

    def _draw(self, text: str) -> None:
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()
