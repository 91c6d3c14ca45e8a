"""The machine's peak, measured: what `peak.c` reaches on all threads at once."""

from __future__ import annotations

import ctypes
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

from convjit.backends.cpu.toolchain import Toolchain

REPEATS = 5
SECONDS = 0.004


def flops_per_second(toolchain: Toolchain, threads: int) -> float:
    """The best of some short runs, each on all threads from one moment on; it takes 30 ms."""
    sums = toolchain.machine.registers // 2
    text = (
        f"#define LANES {toolchain.machine.lanes}\n#define SUMS {sums}\n"
        + Path(__file__).with_name("peak.c").read_text()
    )
    peak = ctypes.CDLL(str(toolchain.build(text))).cj_peak
    peak.argtypes = [ctypes.c_long, ctypes.c_float, ctypes.c_float]
    peak.restype = ctypes.c_float
    barrier = Barrier(threads)

    def run(times: int) -> tuple[float, float]:
        barrier.wait()
        start = time.perf_counter()
        peak(times, 0.5, 1.0)
        return start, time.perf_counter()

    def seconds(times: int) -> float:
        starts, ends = zip(*pool.map(run, [times] * threads), strict=True)
        return max(ends) - min(starts)

    with ThreadPoolExecutor(threads) as pool:
        times = int(100_000 * SECONDS / seconds(100_000))
        best = min(seconds(times) for _ in range(REPEATS))
    return 2 * toolchain.machine.lanes * sums * times * threads / best
