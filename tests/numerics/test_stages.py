"""How the runtime runs kernels: stages, threads, arenas, forks. The checks themselves are in stages.c."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from convjit.backends.cpu import runtime, toolchain

CHECKS = Path(__file__).with_name("stages.c")


@pytest.fixture(scope="module")
def checks() -> ctypes.CDLL:
    return ctypes.CDLL(str(toolchain.find().build(runtime.text() + CHECKS.read_text())))


@pytest.mark.parametrize("threads", [*range(1, 10), 16])
def test_every_unit_runs_once_and_after_the_stage_before(checks: ctypes.CDLL, threads: int):
    for batch in range(1, 9):
        assert checks.check_stages(ctypes.c_long(batch), threads) == 0


@pytest.mark.parametrize("name", ["absent_worker", "call_within", "callers_at_once", "arenas"])
def test_of_stages(checks: ctypes.CDLL, name: str):
    assert getattr(checks, f"check_{name}")() == 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_forks_of_a_busy_process(checks: ctypes.CDLL):
    assert checks.check_forks() == 0


def test_threads_do_not_race(tmp_path: Path):
    source, program = tmp_path / "stages.c", tmp_path / "stages"
    source.write_text(runtime.text() + CHECKS.read_text())
    compiler = toolchain.find().command[0]
    build = subprocess.run([compiler, "-DALONE", "-g", "-O1", "-fsanitize=thread", "-o", program, source, "-lpthread"])
    if build.returncode:
        pytest.skip("the compiler has no thread sanitizer")
    done = subprocess.run([program], capture_output=True, text=True, timeout=60)
    if "unexpected memory mapping" in done.stderr:
        pytest.skip("the thread sanitizer does not run on this system")
    assert done.returncode == 0, done.stderr


NARROWED = """
import ctypes, os, pathlib, sys
checks = ctypes.CDLL(sys.argv[1])
assert checks.check_stages(ctypes.c_long(8), 2) == 0
threads = [task.joinpath("status").read_text() for task in pathlib.Path("/proc/self/task").iterdir()]
blocked = [status for status in threads if int(status.split("SigBlk:")[1].split()[0], 16) & 1 << 14]
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
assert checks.check_stages(ctypes.c_long(8), 2) == 0
print(len(threads), len(blocked), checks.threads_now(2))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_workers_take_no_signals_and_a_mask_narrowed_later_counts():
    library = toolchain.find().build(runtime.text() + CHECKS.read_text())
    done = subprocess.run([sys.executable, "-c", NARROWED, str(library)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    threads_left = 1 if len(os.sched_getaffinity(0)) > 1 else 2
    assert done.stdout.split() == ["2", "1", str(threads_left)]
