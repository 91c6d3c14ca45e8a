"""How long a kernel should take on a chip: a roofline for each of its launches.

A launch takes as long as what keeps it longest: its multiply-adds, what its threads read through the caches, what
memory has to move, or the launch itself. Nothing here was measured by us; the constants are those that others published
(P. Turner's metal-benchmarks, MLX's issues on small kernels). It compares algorithms, Winograd's with the usual one.
The tile of one template is chosen by what its cores do all the while (`gemm.cycles`, `depthwise`), which a roofline
does not see: loads that share a core with multiply-adds, barriers. `convjit.tune` measures them.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Literal

from convjit.kernel import Kernel
from convjit.schedule import Schedule
from convjit.schedule.metal.chip import Chip
from convjit.schedule.metal.work import Work, work

SHORTEST = 5e-6
"""Seconds of a launch, however little it does."""
DEPENDENT = 2.5e-6
"""Seconds between a launch and the one that waits for it."""

_BANDWIDTH = 0.8
"""The part of the vendor's bandwidth that can be had."""
_CACHE_BYTES = 0.25
"""That a core reads from its cache for each of its floating-point operations: 64 a cycle, with 256 operations."""
_THREADS = 128
"""Of the threadgroups that `Chip.threadgroups_per_core` counts."""
_BUSY = 1 / 3
"""Of all threads that a core has room for: with fewer, it waits for the latency of each."""

Limit = Literal["multiply-adds", "caches", "memory", "launches"]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a kernel costs.

    Attributes:
        seconds: of all its launches.
        bytes: read and written by the accesses of all threads.
        multiply_adds: issued.
        threadgroups: of all launches.
        limited_by: what the longest launch spends its time with.
    """

    seconds: float
    bytes: int
    multiply_adds: int
    threadgroups: int
    limited_by: Limit


def cost(kernel: Kernel, schedule: Schedule, chip: Chip) -> Cost:
    """The cost of `kernel` by `schedule` on `chip`.

    Raises:
        KeyError: for a template whose work nobody counts.
    """
    launches = work(kernel, schedule)
    times = [_times(launch, kernel.dtype, chip) for launch in launches]
    longest = max(times, key=lambda limits: max(limits.values()))
    return Cost(
        seconds=sum(max(limits.values()) + DEPENDENT for limits in times),
        bytes=sum(launch.bytes_read + launch.bytes_written for launch in launches),
        multiply_adds=sum(launch.multiply_adds for launch in launches),
        threadgroups=sum(launch.threadgroups for launch in launches),
        limited_by=max(longest, key=lambda limit: longest[limit]),
    )


def _times(launch: Work, dtype: str, chip: Chip) -> dict[Limit, float]:
    """Seconds of one launch, if only this were to limit it."""
    operations = chip.teraflops * 1e12
    busy = occupancy(launch, dtype, chip)
    return {
        "multiply-adds": 2
        * launch.multiply_adds
        / (operations * (chip.matrix_rate if launch.on_matrices else 1))
        / busy,
        "caches": (launch.bytes_read + launch.bytes_written) / (operations * _CACHE_BYTES) / busy,
        "memory": launch.bytes_once / (chip.gigabytes_per_second * 1e9 * _BANDWIDTH),
        "launches": SHORTEST,
    }


def occupancy(launch: Work, dtype: str, chip: Chip) -> float:
    """The part of all cores' time that a launch uses: its last wave of threadgroups leaves some of them idle."""
    a_core = chip.threadgroups_per_core(dtype) * _THREADS / launch.threads
    waves = launch.threadgroups / (chip.cores * a_core)
    rest = launch.threadgroups - int(waves) * chip.cores * a_core
    last = max(ceil(rest / chip.cores) / a_core, _BUSY) if rest > 0 else 0.0
    return waves / (int(waves) + last)
