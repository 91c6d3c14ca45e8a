"""What was measured on this machine, kept between processes.

CONVJIT_TUNE=1    measure the candidates of each kernel that is new here, once
CONVJIT_TUNE=0    act as if nothing had ever been measured
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Generator
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from convjit.backends import Backend
from convjit.kernel import Kernel
from convjit.schedule import Schedule
from convjit.storage import cache, sources
from convjit.storage.environment import convjit_version, mlx_version, os_build

MARGIN = 1.1
"""How many times faster something must be to take the place of what would run without any measurement."""

_SUFFIX = ".tuned"


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a kernel took by one schedule, or, without one, by MLX's own op and elementwise ops after it.

    Attributes:
        schedule: whose time it is.
        seconds: the median.
        fastest: the fastest run. On a busy machine medians may differ for no other reason; to be taken for faster, a
            schedule must be so by both.
    """

    schedule: Schedule | None
    seconds: float
    fastest: float

    def clearly_beats(self, other: Timing) -> bool:
        """Is this at least 10% faster?"""
        return self.seconds * MARGIN <= other.seconds and self.fastest * MARGIN <= other.fastest


@dataclass(frozen=True)
class Outcome:
    """What came of measuring one kernel.

    Attributes:
        timings: the backend's first choice, then the others; MLX's own op is the last, where it was affordable.
    """

    timings: tuple[Timing, ...]

    @property
    def first(self) -> Timing:
        """What would run if nothing had been measured."""
        return self.timings[0]

    @property
    def plain(self) -> Timing | None:
        """MLX's own op."""
        return self.timings[-1] if self.timings[-1].schedule is None else None

    @cached_property
    def ours(self) -> Timing:
        """The best of our schedules: the first unless another is clearly faster."""
        better = [t for t in self.timings if t.schedule is not None and t.clearly_beats(self.first)]
        return min(better, key=lambda t: t.seconds, default=self.first)

    @property
    def chosen(self) -> Timing:
        """The best of our schedules, or MLX's own op if that is clearly faster still."""
        return self.plain if self.plain and self.plain.clearly_beats(self.ours) else self.ours

    def note(self) -> str:
        """For `explain`."""
        if self.plain and self.chosen is self.plain:
            return f"MLX's own op is faster here ({_ms(self.plain)} / {_ms(self.ours)})"
        instead = f", {_ms(self.first)} before" if self.ours is not self.first else ""
        return f"tuned: {_ms(self.ours)}{instead}"


def _ms(timing: Timing) -> str:
    return f"{milliseconds(timing.seconds)} ms"


def milliseconds(seconds: float) -> str:
    """Three digits, and all those before the point."""
    return f"{1e3 * seconds:.3g}" if seconds < 0.1 else f"{1e3 * seconds:,.0f}"


_is_ignored = ContextVar("_is_ignored", default=False)


def is_wanted() -> bool:
    """Does the environment ask for measurements?"""
    return not is_off() and bool(os.environ.get("CONVJIT_TUNE"))


def is_off() -> bool:
    """Does the environment forbid them?"""
    return os.environ.get("CONVJIT_TUNE") == "0"


@contextlib.contextmanager
def ignored() -> Generator[None]:
    """While inside, nothing was ever measured."""
    token = _is_ignored.set(True)
    try:
        yield
    finally:
        _is_ignored.reset(token)


def find(backend: Backend, kernel: Kernel) -> Outcome | None:
    """What was measured for `kernel`, by this process or an earlier one; None if nothing was.

    The key: the kernel with its batch, the backend, device, its caches and threads, system build, versions, and the
    code that makes schedules and texts.
    """
    if _is_ignored.get() or is_off():
        return None
    path = cache.find(_key(backend, kernel), _SUFFIX)
    return None if path is None else _read(path)


def keep(backend: Backend, kernel: Kernel, outcome: Outcome) -> None:
    """Remember an outcome, in place of an older one."""
    key = _key(backend, kernel)
    if older := cache.find(key, _SUFFIX):
        with contextlib.suppress(OSError):
            older.unlink()
    cache.artefact(key, _SUFFIX, lambda path: _write(path, kernel, outcome))


def _key(backend: Backend, kernel: Kernel) -> str:
    where = (backend.name, backend.fingerprint(), backend.machine(), os_build(), mlx_version(), convjit_version())
    code = sources.digest(sources.PACKAGE / "schedule", sources.PACKAGE / "emit", sources.TEMPLATES)
    return cache.content_key("tuned", *where, code, repr(kernel))


def _write(path: Path, kernel: Kernel, outcome: Outcome) -> None:
    timings = [
        {"schedule": t.schedule and {"template": t.schedule.template, "choices": dict(t.schedule.choices)}}
        | {"seconds": t.seconds, "fastest": t.fastest}
        for t in outcome.timings
    ]
    path.write_text(json.dumps({"kernel": repr(kernel), "timings": timings}, indent=2) + "\n")


def _read(path: Path) -> Outcome | None:
    try:
        timings = json.loads(path.read_text())["timings"]
        found = [Timing(_schedule(t["schedule"]), float(t["seconds"]), float(t["fastest"])) for t in timings]
        return Outcome(tuple(found)) if found and found[0].schedule else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _schedule(record: dict[str, Any] | None) -> Schedule | None:
    return None if record is None else Schedule(record["template"], tuple(sorted(record["choices"].items())))
