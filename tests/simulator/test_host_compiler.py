"""The host's C++ compiler: what it is given precompiled, and what is said where there is none."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from test_simulator import X, run

from convjit import simulator
from convjit.simulator import compiler


@pytest.mark.parametrize("precompiles", [True, False])
def test_headers_are_precompiled_where_that_is_possible(
    precompiles: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commands: list[list[str]] = []
    said = compiler._said

    def noted(command: list[str], source: str = "") -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return said([*command, "-no-such-flag"] if "c++-header" in command and not precompiles else command, source)

    monkeypatch.setenv("CONVJIT_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compiler, "_said", noted)
    for factor in (2, 3):
        np.testing.assert_array_equal(run(f"y[g] = {factor}.0f * a[g];", X), factor * np.array(X))
    assert sum("c++-header" in command for command in commands) == (1 if precompiles else 2)
    assert sum("-include" in command for command in commands) == (2 if precompiles else 0)


def test_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CONVJIT_CXX", raising=False)
    monkeypatch.setattr(compiler, "find_spec", lambda name: None)
    with pytest.raises(simulator.CompileError, match="pip install ziglang"):
        compiler.compiler.__wrapped__()
