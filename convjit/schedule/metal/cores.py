"""What the cores of Apple's GPUs do in a cycle: the constants of the models that compare tiles of matrices."""

from __future__ import annotations

from math import ceil

from convjit.schedule.metal.chip import Chip

MAX_SUMS = 16
"""Matrices that a simdgroup sums: two registers a lane each."""

MMA_CYCLES, LOAD_CYCLES, BARRIER_CYCLES = 18, 4, 40
"""Of a simdgroup: one 8x8x8 multiply-accumulate (P. Turner, metal-benchmarks), one load of all lanes, one barrier."""

CACHE_BYTES = 32
"""That a core reads from the caches beyond its own, a cycle."""

LAUNCH_CYCLES = 9750
"""Of a launch that waits for another: 7.5 us."""

GIGAHERTZ = 1.3

_RESIDENT = 6
"""Simdgroups of a partition that keep it busy (24 a core: P. Turner)."""


def elapsed(cycles: float, simdgroups: int, chip: Chip) -> float:
    """Cycles until all of so many simdgroups are done, if one by itself takes `cycles`."""
    # Of the simdgroups of one of a core's four partitions, one computes while others wait for memory.
    of_partition = simdgroups / (4 * chip.cores)
    waves = max(of_partition, 1.0) if of_partition > _RESIDENT else max(ceil(of_partition), 1)
    busy = (2 + min(waves, _RESIDENT)) / (2 + _RESIDENT)
    return cycles * waves / busy


def memory_cycles(size: float, chip: Chip) -> float:
    """Cycles that memory takes to move so many bytes, at the vendor's bandwidth."""
    return size / (chip.gigabytes_per_second / GIGAHERTZ)
