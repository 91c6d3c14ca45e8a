"""How large the caches of this machine are."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from functools import cache
from pathlib import Path

_SYSFS = Path("/sys/devices/system/cpu/cpu0")
_UNITS = {"K": 1 << 10, "M": 1 << 20}
_PLAUSIBLE_BYTES = range(4 << 10, (64 << 20) + 1)


@cache
def cache_bytes(level: int) -> int | None:
    """What a core has of the data cache of a level, 1 or 2, in bytes; None if the system does not tell."""
    found = _apple(level) if sys.platform == "darwin" else _linux(level, _SYSFS)
    return found if found in _PLAUSIBLE_BYTES else None


def _linux(level: int, cpu: Path) -> int | None:
    for folder in sorted(cpu.glob("cache/index*")):
        with contextlib.suppress(OSError, ValueError, KeyError):
            if int(_read(folder, "level")) != level or _read(folder, "type") == "Instruction":
                continue
            size = _read(folder, "size")
            of_a_core = _count(_read(cpu, "topology/thread_siblings_list"))
            sharing = max(1, _count(_read(folder, "shared_cpu_list")) // of_a_core)
            return int(size[:-1]) * _UNITS[size[-1]] // sharing
    return None


def _read(folder: Path, name: str) -> str:
    return (folder / name).read_text().strip()


def _count(cpus: str) -> int:
    """How many CPUs a list such as "0-3,8" names."""
    ends = [part.partition("-") for part in cpus.split(",")]
    return sum(int(last or first) - int(first) + 1 for first, _, last in ends)


def _apple(level: int) -> int | None:
    """Of the faster cores: "perflevel0"."""
    size = _sysctl("l1dcachesize" if level == 1 else "l2cachesize")
    if size is None or level == 1:
        return size
    return size // (_sysctl("cpusperl2") or 1)


def _sysctl(name: str) -> int | None:
    value, length = ctypes.c_int64(), ctypes.c_size_t(8)
    key = f"hw.perflevel0.{name}".encode()
    failed = ctypes.CDLL(None).sysctlbyname(key, ctypes.byref(value), ctypes.byref(length), None, 0)
    return None if failed else value.value
