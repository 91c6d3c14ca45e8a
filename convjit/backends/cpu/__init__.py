"""The CPU backend: C, written for this CPU's vectors, compiled by the C compiler that is there."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from functools import cached_property
from math import prod

import mlx.core as mx

from convjit.backends import BackendError, Call, Runner, Stretch
from convjit.backends.cpu import packing, toolchain
from convjit.backends.cpu.cpus import threads
from convjit.backends.cpu.runtime import Runtime
from convjit.backends.cpu.stretch import StretchRunner
from convjit.backends.cpu.toolchain import Toolchain
from convjit.emit import cpu as emit
from convjit.emit.cpu.language import C
from convjit.emit.cpu.source import Source
from convjit.emit.epilogue import unsupported
from convjit.geometry import Window
from convjit.kernel import AnyKernel, Elementwise, Kernel, Norm, Pack, Rearrange, Softmax
from convjit.schedule import Schedule
from convjit.schedule import cpu as schedules
from convjit.schedule.cpu.machine import Machine

_MAX_PHASES = 4096
_MAX_ELEMENTS = 2**31 - 1


class CpuBackend:
    """Runs kernels as compiled C; see `convjit.backends.Backend`."""

    name = "cpu"
    needs_proof = True

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._code: dict[str, int] = {}
        self._sources: dict[str, Source] = {}
        self._libraries: list[ctypes.CDLL] = []

    @cached_property
    def _toolchain(self) -> Toolchain:
        return toolchain.find()

    @cached_property
    def _cpu(self) -> str:
        return toolchain.cpu()

    @cached_property
    def _machine(self) -> Machine:
        return replace(self._toolchain.machine, threads=threads())

    @cached_property
    def _runtime(self) -> Runtime:
        return Runtime(self._toolchain, self._machine.threads)

    def fingerprint(self) -> str:
        return self._toolchain.fingerprint()

    def machine(self) -> str:
        return f"{self._machine} in {self._cpu}"

    def schedule(self, kernel: AnyKernel) -> Schedule | str:
        if isinstance(kernel, (Elementwise, Norm, Rearrange, Softmax)):
            return schedules.choose(kernel, self._machine)
        if isinstance(kernel, Kernel) and (op := unsupported(kernel.epilogue, C)):
            return f"its epilogue has {op}, which the CPU kernels cannot do"
        geometry = kernel.geometry
        if max(prod(geometry.in_shape[1:]), prod(geometry.out_shape[1:])) > _MAX_ELEMENTS:
            return f"an image of {prod(geometry.out_shape[1:])} elements is too large for the CPU kernels"
        if prod(geometry.window.input_dilation) > _MAX_PHASES:
            return f"input dilation {geometry.window.input_dilation} is too large for the CPU kernels"
        return schedules.choose(kernel, self._machine)

    def pack(self, window: Window, schedule: Schedule, weight: mx.array) -> mx.array:
        return packing.pack(window, schedule, weight, self._runtime)

    def packer(self, window: Window, schedule: Schedule) -> Callable[[mx.array], mx.array]:
        return packing.Packer(window, schedule, self._runtime)

    def candidates(self, kernel: Kernel) -> list[Schedule]:
        if isinstance(self.schedule(kernel), str):
            return []
        return schedules.candidates(kernel, self._machine)

    def smaller(self, kernel: AnyKernel, schedule: Schedule) -> Schedule | None:
        return schedules.smaller(kernel, schedule, self._machine)

    def identity(self, kernel: AnyKernel, schedule: Schedule) -> str:
        return self._source(kernel, schedule).text

    def source(self, kernel: AnyKernel, schedule: Schedule) -> str:
        return self._source(kernel, schedule).text

    def compile(self, work: Sequence[tuple[AnyKernel, Schedule]], progress: Callable[[int, int], None]) -> None:
        _ = self._runtime
        kernels = {_key(kernel, schedule): (kernel, schedule) for kernel, schedule in work}.values()
        with ThreadPoolExecutor(self._runtime.threads) as pool:
            jobs = [pool.submit(self._load, *kernel) for kernel in kernels]
            try:
                for done, job in enumerate(as_completed(jobs), 1):
                    job.result()
                    progress(done, len(jobs))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def load(self, stretch: Stretch) -> Runner:
        return StretchRunner(stretch, self._runtime, self._code_of)

    def _code_of(self, call: Call) -> int:
        return self._runtime.packing_kernel if isinstance(call.kernel, Pack) else self._load(call.kernel, call.schedule)

    def _load(self, kernel: AnyKernel, schedule: Schedule) -> int:
        """The address of the loaded `cj_kernel`, compiled unless it already was. Two threads may do the same work."""
        key = _key(kernel, schedule)
        if found := self._code.get(key):
            return found
        source = self._source(kernel, schedule)
        try:
            library = ctypes.CDLL(str(self._toolchain.build(source.text)))
        except (BackendError, OSError) as error:
            raise BackendError(f"the kernel {source.name} cannot be made callable: {error}") from error
        address = ctypes.addressof(ctypes.c_char.in_dll(library, source.name))
        with self._lock:
            self._libraries.append(library)
            return self._code.setdefault(key, address)

    def _source(self, kernel: AnyKernel, schedule: Schedule) -> Source:
        key = _key(kernel, schedule)
        if key not in self._sources:
            self._sources[key] = emit.source(kernel, schedule)
        return self._sources[key]


def _key(kernel: AnyKernel, schedule: Schedule) -> str:
    """What a kernel's text depends on. As text: kernels whose constants are 0.0 and -0.0 compare equal."""
    return repr((kernel.any_batch(), schedule))
