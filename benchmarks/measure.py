"""Timing side by side, and a record of where it was done."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlx.core as mx

RESULTS = Path(__file__).parent / "results"


def interleaved(calls: Mapping[str, Callable[[], mx.array]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each call, by name, in rounds of one call each: what slows the machine down slows them all.

    One call of each goes before and is not counted.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            mx.eval(call())
            if turn > 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def median_ms(seconds: list[float]) -> float:
    return 1e3 * statistics.median(seconds)


def relative_error(y: mx.array, reference: mx.array) -> float:
    """The largest difference, over the largest magnitude of the reference; infinite where `y` has a NaN."""
    error = float((mx.abs(y - reference).max() / mx.abs(reference).max()).item())
    return error if error == error else float("inf")


def in_new_process(module: str, *arguments: str, cache: Path) -> dict[str, Any]:
    """Run `python -m module arguments` with a cache folder of its own; what it prints last, read as JSON."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env={**os.environ, "CONVJIT_CACHE_DIR": str(cache)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def machine() -> dict[str, Any]:
    """What a figure depends on besides the code."""
    names = [
        line.split(":", 1)[1].strip()
        for line in (Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else [])
        if line.startswith("model name")
    ]
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "mlx": version("mlx"),
        "device": str(mx.default_device()),
    }


def save(name: str, figures: Mapping[str, Any]) -> Path:
    """Write figures as JSON under `benchmarks/results`, with the machine they were measured on."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    record = {"when": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine(), **figures}
    path.write_text(json.dumps(record, indent=2) + "\n")
    return path
