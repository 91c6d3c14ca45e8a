"""How many threads kernels run on: what this process was told, or the cores that it may use."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from math import ceil
from pathlib import Path, PurePosixPath

from convjit.backends import BackendError


def threads() -> int:
    """`CONVJIT_NUM_THREADS`, or as many as there are cores for this process, or as its control groups let it use.

    Raises:
        BackendError: if the variable is not a positive number.
    """
    chosen = os.environ.get("CONVJIT_NUM_THREADS")
    if chosen:
        if not chosen.isdigit() or int(chosen) < 1:
            raise BackendError(f"CONVJIT_NUM_THREADS must be a positive number, got {chosen!r}")
        return int(chosen)
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    return ceil(min(cores(Path("/"), os.sched_getaffinity(0)), quota(Path("/"))))


def cores(root: Path, cpus: Collection[int]) -> int:
    """How many cores these CPUs belong to: the two CPUs of one would wait for the same arithmetic units and caches.

    Args:
        root: the folder that holds "sys".
    """
    found: set[str] = set()
    for cpu in cpus:
        try:
            found.add((root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text())
        except OSError:
            found.add(str(cpu))
    return len(found)


def quota(root: Path) -> float:
    """How many CPUs' time the control groups of this process have, of version 1 or 2; infinity if that is unlimited.

    Args:
        root: the folder that holds "proc" and "sys".
    """
    try:
        membership = (root / "proc/self/cgroup").read_text()
    except OSError:
        return float("inf")
    return min((limit for line in membership.splitlines() for limit in _limits(root, line)), default=float("inf"))


def _limits(root: Path, line: str) -> Iterator[float]:
    """The limits of a group and all above it. A container may see its own group as the uppermost one."""
    _, controllers, path = line.split(":", 2)
    if controllers and "cpu" not in controllers.split(","):
        return
    mounted = root / "sys/fs/cgroup" / controllers
    relative = PurePosixPath(path.lstrip("/"))
    for group in (relative, *relative.parents):
        limit = _limit(mounted / group) if controllers == "" else _limit_of_version_1(mounted / group)
        if limit is not None:
            yield limit


def _limit(group: Path) -> float | None:
    try:
        quota, period = (group / "cpu.max").read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else int(quota) / int(period)


def _limit_of_version_1(group: Path) -> float | None:
    try:
        quota, period = (int((group / name).read_text()) for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us"))
    except (OSError, ValueError):
        return None
    return None if quota <= 0 else quota / period
