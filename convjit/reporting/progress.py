"""A line on the terminal while kernels compile or are measured, where there is a terminal and it takes a while."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

_PATIENCE = 1.0
"""Seconds of silence before the line appears."""


_BAR = 24
"""Characters of a bar."""

Progress = Callable[[int, int], None]


@contextmanager
def kernel_progress(name: str) -> Generator[Progress]:
    """Yields `progress(done, total)`. The line comes up even if no kernel is done yet, and is wiped at the end."""
    with _progress(
        f"convjit: {name}: compiling", lambda done, total: f"convjit: {name}: compiled {done} of {total} kernels"
    ) as progress:
        yield progress


@contextmanager
def tuning_progress(name: str) -> Generator[Progress]:
    """The same while the candidates of kernels are measured, which takes seconds for each: with a bar."""

    def text(done: int, total: int) -> str:
        bar = "#" * (_BAR * done // total)
        return f"convjit: {name}: [{bar:-<{_BAR}}] measured {done} of {total} kernels"

    with _progress(f"convjit: {name}: measuring", text) as progress:
        yield progress


@contextmanager
def _progress(start: str, text: Callable[[int, int], str]) -> Generator[Progress]:
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    line = _Line(start)
    timer = threading.Timer(_PATIENCE, line.show)
    timer.daemon = True
    timer.start()
    try:
        yield lambda done, total: line.change(text(done, total))
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
