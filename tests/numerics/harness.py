"""Storage types in NumPy, memory beside forbidden pages, and kernels run one at a time."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Sequence

import mlx.core as mx
import numpy as np
import numpy.typing as npt
from reference import round_to

from convjit.backends import Runner, Stretch
from convjit.backends.cpu import CpuBackend
from convjit.kernel import AnyKernel, Kernel, OtherKernel
from convjit.schedule import Schedule

Array = npt.NDArray[np.float64]

STORED = {"f32": np.float32, "f16": np.float16, "bf16": np.uint16}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def to_storage(value: npt.ArrayLike, dtype: str) -> npt.NDArray[np.generic]:
    """Float64 numbers as a kernel reads them; bf16 as its bits."""
    value = np.asarray(value, np.float64)
    with np.errstate(over="ignore"):
        if dtype != "bf16":
            return value.astype(STORED[dtype])
        return (round_to(value, "bf16").astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def from_storage(stored: npt.NDArray[np.generic], dtype: str) -> Array:
    if dtype == "bf16":
        stored = (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.astype(np.float64)


class Guarded:
    """An array whose first byte follows, or whose last byte precedes, a page that must not be touched."""

    def __init__(self, array: npt.NDArray[np.generic], at_end: bool):
        page = mmap.PAGESIZE
        pages = -(-array.nbytes // page)
        self._memory = mmap.mmap(-1, (pages + 2) * page)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        inner = pages * page - array.nbytes if at_end else 0
        self.address = start + page + inner
        self.array = np.frombuffer(self._memory, array.dtype, array.size, page + inner).reshape(array.shape)
        self.array[...] = array
        for forbidden in (start, start + (pages + 1) * page):
            assert _libc.mprotect(forbidden, page, 0) == 0


def schedule_of(backend: CpuBackend, kernel: Kernel) -> Schedule:
    schedule = backend.schedule(kernel)
    assert isinstance(schedule, Schedule), schedule
    return schedule


def alone(backend: CpuBackend, kernel: AnyKernel, schedule: Schedule) -> Runner:
    """A stretch of nothing but `kernel`: takes what it reads, a weight packed."""
    return backend.load(Stretch.of_kernel(kernel, schedule))


def run_other(backend: CpuBackend, kernel: OtherKernel, schedule: Schedule, arrays: Sequence[Array]) -> list[Array]:
    """The results of a kernel that is no convolution, on numbers that its storage types hold."""
    stored = [to_storage(a, dtype) for a, dtype in zip(arrays, kernel.operand_dtypes, strict=True)]
    results = alone(backend, kernel, schedule)(stored)
    return [from_storage(r, dtype) for r, dtype in zip(results, kernel.result_dtypes, strict=True)]


def run(
    backend: CpuBackend, kernel: Kernel, schedule: Schedule, x: Array, w: Array, extras: Sequence[Array]
) -> list[Array]:
    """The results of `kernel`, on numbers that its storage types hold; needs the fixture `guarded_memory`."""
    weight = mx.array(to_storage(w, kernel.dtype))
    if kernel.dtype == "bf16":
        weight = weight.view(mx.bfloat16)
    packed = np.array(backend.pack(kernel.geometry.window, schedule, weight))
    read = [to_storage(v, e.dtype) for v, e in zip(extras, kernel.extras, strict=True)]
    results = alone(backend, kernel, schedule)([to_storage(x, kernel.dtype), packed, *read])
    return [from_storage(r, d) for r, d in zip(results, kernel.result_dtypes, strict=True)]
