"""A CPU backend whose kernels are compiled for another CPU and run on its emulation."""

from __future__ import annotations

import shutil
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
from harness import STORED

from convjit.backends import Call, Runner, Stretch
from convjit.backends.cpu import CpuBackend
from convjit.backends.cpu.footprint import footprint
from convjit.backends.cpu.runtime import Runtime, text
from convjit.backends.cpu.toolchain import FLAGS, Toolchain
from convjit.kernel import AnyKernel
from convjit.schedule import Schedule
from convjit.storage import cache

THREADS = 2


@dataclass(frozen=True)
class Emulation:
    """How to compile for a CPU, and how to run its programs."""

    compiler: str
    emulator: tuple[str, ...]


def arm(options: str = "", cpu: str = "cortex-a72") -> Emulation | None:
    """64-bit Arm by gcc and qemu; None where they are not installed."""
    compiler = next(filter(None, map(shutil.which, ("aarch64-linux-gnu-gcc", "aarch64-linux-gnu-gcc-12"))), None)
    emulator = shutil.which("qemu-aarch64")
    if compiler is None or emulator is None:
        return None
    return Emulation(f"{compiler} {options}", (emulator, "-cpu", cpu, "-L", "/usr/aarch64-linux-gnu"))


class CrossBackend(CpuBackend):
    """Schedules and compiles for the other CPU, packs weights on this one, runs each kernel in a process of its own."""

    def __init__(self, target: Toolchain, host: Runtime, emulator: Sequence[str]):
        super().__init__()
        self._toolchain = target
        self._runtime = host
        self._emulator = emulator

    def load(self, stretch: Stretch) -> Runner:
        (call,) = stretch.calls
        return lambda inputs: self._run(call, inputs)

    def _load(self, kernel: AnyKernel, schedule: Schedule) -> int:
        self._library(kernel, schedule)
        return 0

    def _library(self, kernel: AnyKernel, schedule: Schedule) -> str:
        return str(self._toolchain.build(self._source(kernel, schedule).text))

    @cached_property
    def _program(self) -> Path:
        """The runtime and cross.c."""
        main = text() + Path(__file__).with_name("cross.c").read_text()
        flags = [flag for flag in FLAGS if flag not in ("-shared", "-fPIC")]

        def make(program: Path) -> None:
            source = program.with_name("main.c")
            source.write_text(main)
            libraries = ["-lpthread", "-ldl", "-lm"]
            subprocess.run([*self._toolchain.command, *flags, "-o", program, source, *libraries], check=True)

        return cache.artefact(cache.content_key("cross", self.fingerprint(), main), ".program", make)

    def _run(self, call: Call, inputs: Sequence[npt.NDArray[np.generic]]) -> list[npt.NDArray[np.generic]]:
        kernel = call.kernel
        results = [
            np.empty(shape, STORED[d]) for shape, d in zip(kernel.result_shapes, kernel.result_dtypes, strict=True)
        ]
        taken = footprint(call)
        steps = list(taken.batch_steps)
        if taken.numbers is not None:
            inputs, steps = [np.frombuffer(taken.numbers, np.int64), *inputs], [0, *steps]
        arrays = [*inputs, *results]
        described = [
            (array.nbytes, step, number >= len(inputs))
            for number, (array, step) in enumerate(zip(arrays, steps, strict=True))
        ]
        numbers = [*taken.extents, THREADS, len(arrays), *chain.from_iterable(described)]
        with tempfile.TemporaryDirectory(prefix="convjit-") as folder:
            given, made = Path(folder, "call"), Path(folder, "results")
            given.write_bytes(struct.pack(f"{len(numbers)}q", *numbers) + b"".join(a.tobytes() for a in inputs))
            words = [self._library(kernel, call.schedule), self._source(kernel, call.schedule).name, given, made]
            subprocess.run([*self._emulator, self._program, *words], check=True, timeout=100)
            data = made.read_bytes()
        at = 0
        for result in results:
            result[...] = np.frombuffer(data, result.dtype, result.size, at).reshape(result.shape)
            at += result.nbytes
        return results
