"""Every example runs from any folder, agrees with plain MLX, and is listed in the README."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = [p for p in sorted((ROOT / "examples").glob("*.py")) if p.stem not in ("__init__", "demo", "models")]


AGREE = {
    "fused_epilogue": 4,
    "inspect_ir": 1,
    "nn_layers": 6,
    "own_pass": 1,
    "train_step": 2,
    "train_then_infer": 1,
    "tune": 1,
}
"""How often these compare results."""


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example(example: Path, tmp_path: Path):
    command = [sys.executable, "-W", "error::DeprecationWarning", str(example)]
    environment = (
        os.environ | {"CONVJIT_TUNE": "", "CONVJIT_CACHE_DIR": str(tmp_path)} if example.stem == "tune" else None
    )
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0 and not done.stderr, done.stderr
    differences = [float(number) for number in re.findall(r"largest difference.*: (\S+)$", done.stdout, re.MULTILINE)]
    assert len(differences) == AGREE.get(example.stem, 0) and all(d < 1e-4 for d in differences)
    if example.stem == "own_pass":
        before, after = done.stdout.split("== after")
        assert "arith.divf" in before and "arith.divf" not in after


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_readme_lists_it(example: Path):
    assert f"examples/{example.name}" in (ROOT / "README.md").read_text()
