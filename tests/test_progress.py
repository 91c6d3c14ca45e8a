"""The line on the terminal while kernels compile: late, honest, wiped, and on terminals only."""

from __future__ import annotations

import io
import sys
import time

import pytest

from convjit.reporting import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def wait_for(text: str, terminal: Terminal) -> None:
    deadline = time.monotonic() + 20
    while text not in terminal.getvalue():
        assert time.monotonic() < deadline, terminal.getvalue()
        time.sleep(0.01)


def test_the_line_comes_before_the_first_kernel_is_done(monkeypatch: pytest.MonkeyPatch):
    """As with zig, which compiles its own libraries first."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progress, "_PATIENCE", 0.05)
    with progress.kernel_progress("Net") as report:
        wait_for("convjit: Net: compiling", terminal)
        report(1, 2)
        assert terminal.getvalue().endswith("convjit: Net: compiled 1 of 2 kernels")
    assert terminal.getvalue().endswith("\r\x1b[K")


def test_nothing_where_it_is_quick_or_fails(monkeypatch: pytest.MonkeyPatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with pytest.raises(KeyError), progress.kernel_progress("Net") as report:
        report(1, 2)
        raise KeyError
    assert terminal.getvalue() == ""


def test_nothing_without_a_terminal(monkeypatch: pytest.MonkeyPatch):
    file = io.StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    monkeypatch.setattr(progress, "_PATIENCE", 0.0)
    with progress.kernel_progress("Net") as report:
        report(1, 2)
        time.sleep(0.05)
    assert file.getvalue() == ""
