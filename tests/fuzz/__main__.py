"""`make fuzz`: random programs in processes of their own, one for each core, with a counter. See test_fuzz.py.

Seven chunks of eight are compiled by the C compiler at -Og, which is quicker, the others as always.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

CHUNK = 100
"""Programs a process."""


def run_chunk(seed: int, first: int, count: int) -> tuple[int, str]:
    """How many tests failed, and what pytest says about them; a process that dies is one failure."""
    environment = os.environ | {"FUZZ_SEED": str(seed), "FUZZ_FIRST": str(first), "FUZZ_COUNT": str(count)}
    if first // CHUNK % 8:
        environment["FUZZ_OPTIMIZE"] = "-Og"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--tb=short", str(Path(__file__).parent)]
    process = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if process.returncode == 0:
        return 0, ""
    failed = re.search(r"(\d+) failed", process.stdout)
    return int(failed[1]) if failed else 1, process.stdout[-8000:]


def main() -> int:
    seed, count = int(os.environ["FUZZ_SEED"]), int(os.environ["FUZZ_COUNT"])
    first = int(os.environ.get("FUZZ_FIRST", "0"))
    chunks = [(start, min(CHUNK, first + count - start)) for start in range(first, first + count, CHUNK)]
    done = failed = 0
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        jobs = {pool.submit(run_chunk, seed, *chunk): chunk for chunk in chunks}
        for job in as_completed(jobs):
            failures, said = job.result()
            done, failed = done + jobs[job][1], failed + failures
            if said:
                print(f"\n== FUZZ_SEED={seed} FUZZ_FIRST={jobs[job][0]} FUZZ_COUNT={jobs[job][1]}\n{said}")
            print(f"\rFUZZ_SEED={seed}: {done} of {count} programs, {failed} failures", end="", flush=True)
    print()
    return 1 if failed else 0


sys.exit(main())
