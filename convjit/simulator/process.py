"""Runs a compiled kernel in a process of its own: nothing that it does can harm this one.

The contents of the buffers go there and back in one file, which both map: see runtime/runtime.cpp.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from convjit.simulator.lint import Finding
from convjit.simulator.text import Buffer

_PAGE = 64 << 10


@dataclass(frozen=True, slots=True)
class Memory:
    """What lies behind one buffer of a launch.

    Attributes:
        buffer: the kernel's argument.
        content: its bytes; they change if it is an output.
        element_bytes: of one element.
        is_initialised: may the kernel read what it has not written?
        pointer: how many bytes into `content` the kernel's argument points.
    """

    buffer: Buffer
    content: npt.NDArray[np.uint8]
    element_bytes: int
    is_initialised: bool
    pointer: int = 0

    @property
    def is_written(self) -> bool:
        return self.buffer.role == "output"


@dataclass(frozen=True, slots=True)
class Ended:
    """What a process has told: findings, and counters by name."""

    findings: tuple[Finding, ...]
    counters: dict[str, int]


def timeout() -> int:
    """The seconds that a kernel may take: `CONVJIT_SIMULATOR_TIMEOUT`, by default ten minutes.

    Raises:
        ValueError: if the variable is set to anything but a whole number of seconds.
    """
    given = os.environ.get("CONVJIT_SIMULATOR_TIMEOUT", "600")
    if not given.isdecimal() or int(given) == 0:
        raise ValueError(f"CONVJIT_SIMULATOR_TIMEOUT is {given!r}: give a whole number of seconds")
    return int(given)


def run_program(
    program: Path,
    memories: Sequence[Memory],
    grid: Sequence[int],
    threadgroup: Sequence[int],
    *,
    threads_wait: bool,
    checked: bool,
) -> Ended:
    """Run a compiled kernel, and fill the contents of the buffers that it writes.

    Args:
        program: from `compiler.program`.
        memories: its buffers by index.
        grid: threads an axis.
        threadgroup: threads of a threadgroup an axis.
        threads_wait: see `text.HostText`.
        checked: was the program compiled so?
    """
    with tempfile.TemporaryFile(prefix="convjit-simulator-") as file:
        offset = 0
        places: list[int] = []
        words: list[str] = []
        for memory in memories:
            size = memory.content.nbytes
            pages = -(-size // _PAGE) * _PAGE
            alignment = 64 if checked else 16  # unchecked, only the end of a page shows that an array has ended
            start = (pages - size) // alignment * alignment
            flags = [memory.buffer.is_constant, memory.is_written, memory.is_initialised]
            numbers = [*flags, memory.buffer.line, memory.element_bytes, size, offset, start, memory.pointer]
            words.append(",".join([memory.buffer.name, *(str(int(n)) for n in numbers)]))
            places.append(offset + start)
            file.seek(offset + start)
            file.write(memory.content.data)
            offset += pages
        file.truncate(offset)
        file.flush()
        fixed = [int(checked), int(threads_wait), timeout(), *grid, *threadgroup]
        command = [str(program), str(file.fileno()), *map(str, fixed), *words]
        ended = _start(command, file.fileno())
        for memory, place in zip(memories, places, strict=True):
            if memory.is_written:
                file.seek(place)
                file.readinto(memory.content.data)
    return ended


def _start(command: list[str], file: int) -> Ended:
    for attempt in range(20):
        try:
            done = subprocess.run(
                command, pass_fds=[file], capture_output=True, text=True, check=False, timeout=timeout() + 10
            )
        except subprocess.TimeoutExpired:
            return Ended((Finding(0, f"stopped: still running after {timeout()} seconds"),), {})
        except OSError as error:  # while another thread starts a process, this file may be open for writing in it
            if error.errno != errno.ETXTBSY or attempt == 19:
                raise
            time.sleep(0.01 * (attempt + 1))
        else:
            return _ended(done)
    raise AssertionError("the loop returns or raises")


def _ended(done: subprocess.CompletedProcess[str]) -> Ended:
    findings: list[Finding] = []
    counters: dict[str, int] = {}
    for line in done.stdout.splitlines():
        kind, *fields = line.split("\t")
        if kind == "counter":
            counters[fields[0]] = int(fields[1])
        elif kind == "finding":
            times = f" ({int(fields[1]):,} times)" if fields[1] != "1" else ""
            findings.append(Finding(int(fields[0]), fields[2] + times))
    if done.returncode:
        findings.append(Finding(0, f"the kernel's process ended early: {_why(done.returncode)} {done.stderr.strip()}"))
    return Ended(tuple(findings), counters)


def _why(status: int) -> str:
    return signal.Signals(-status).name if status < 0 else f"exit status {status}"
