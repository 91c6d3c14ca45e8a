"""How many threads kernels run on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from convjit.backends import BackendError
from convjit.backends.cpu import cpus


def test_threads_come_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CONVJIT_NUM_THREADS", "5")
    assert cpus.threads() == 5
    for wrong in ("0", "-1", "many"):
        monkeypatch.setenv("CONVJIT_NUM_THREADS", wrong)
        with pytest.raises(BackendError, match="CONVJIT_NUM_THREADS must be a positive number"):
            cpus.threads()
    monkeypatch.setenv("CONVJIT_NUM_THREADS", "")
    every_core = cpus.threads()
    monkeypatch.delenv("CONVJIT_NUM_THREADS")
    assert cpus.threads() == every_core >= 1


def test_a_quota_takes_threads_away(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("CONVJIT_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(cpus, "cores", lambda _, allowed: len(allowed))
    for limit, threads in ((float("inf"), 8), (16.0, 8), (2.5, 3), (0.1, 1)):
        monkeypatch.setattr(cpus, "quota", lambda _, limit=limit: limit)
        assert cpus.threads() == threads


def system(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_cpus_of_one_core_count_once(tmp_path: Path):
    siblings = ["0,4", "1,5", "2,6", "3,7"] * 2
    files = {f"sys/devices/system/cpu/cpu{n}/topology/thread_siblings_list": f"{s}\n" for n, s in enumerate(siblings)}
    root = system(tmp_path, files)
    assert cpus.cores(root, range(8)) == 4
    assert cpus.cores(root, {1, 5}) == 1
    assert cpus.cores(root, {1, 2, 5, 100}) == 3


VERSION_1 = "11:memory:/pod\n4:cpu,cpuacct:/pod/container\n1:name=systemd:/pod\n"
GROUP = "sys/fs/cgroup"


@pytest.mark.parametrize(
    ("membership", "files", "limit"),
    [
        ("0::/\n", {f"{GROUP}/cpu.max": "150000 100000\n"}, 1.5),
        ("0::/pod/container\n", {f"{GROUP}/pod/container/cpu.max": "max 100000\n"}, float("inf")),
        (
            "0::/pod/container\n",
            {f"{GROUP}/pod/container/cpu.max": "400000 100000\n", f"{GROUP}/pod/cpu.max": "300000 100000\n"},
            3.0,
        ),
        ("0::/seen/from/outside\n", {f"{GROUP}/cpu.max": "200000 100000\n"}, 2.0),
        (
            VERSION_1,
            {
                f"{GROUP}/cpu,cpuacct/pod/container/cpu.cfs_quota_us": "250000\n",
                f"{GROUP}/cpu,cpuacct/pod/container/cpu.cfs_period_us": "100000\n",
                f"{GROUP}/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
                f"{GROUP}/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            2.5,
        ),
        (VERSION_1, {f"{GROUP}/memory/pod/cpu.max": "100000 100000\n"}, float("inf")),
        ("0::/\n", {f"{GROUP}/cpu.max": "nonsense\n"}, float("inf")),
    ],
)
def test_quotas_of_control_groups(tmp_path: Path, membership: str, files: dict[str, str], limit: float):
    assert cpus.quota(system(tmp_path, {"proc/self/cgroup": membership, **files})) == limit


def test_no_control_groups(tmp_path: Path):
    assert cpus.quota(tmp_path) == float("inf")
