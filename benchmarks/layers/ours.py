"""convjit's kernels: one stretch on arrays that are there, without the rest of a compiled program."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from benchmarks.layers.network import Array, Dtype, Network, Refused, Way
from convjit.backends import MLX_DTYPES, Call, Stretch
from convjit.backends.cpu import CpuBackend
from convjit.backends.cpu.memory import borrow
from convjit.backends.cpu.stretch import StretchRunner
from convjit.geometry import Geometry
from convjit.kernel import Epilogue, Extra, Instruction, Kernel
from convjit.schedule import Schedule


def kernel_of(geometry: Geometry, dtype: Dtype) -> Kernel:
    """The convolution with bias and ReLU, as the passes write it."""
    bias = Extra((*(1,) * (geometry.rank + 1), geometry.out_channels), dtype)
    steps: list[Instruction] = []

    def write(op: str, *operands: int, type: str = "f32", attribute: str | float | None = None) -> int:
        steps.append(Instruction(f"arith.{op}", operands, type, attribute))
        return 1 + len(steps)

    y = write("addf", 0, 1 if dtype == "f32" else write("extf", 1))
    zero = write("constant", attribute=0.0)
    result = write("select", write("cmpf", y, zero, type="i1", attribute="ugt"), y, zero)
    if dtype != "f32":
        result = write("truncf", result, type=dtype)
    return Kernel(geometry, dtype, (bias,), Epilogue(("f32", dtype), tuple(steps), (result,)), (dtype,))


def chosen(backend: CpuBackend, kernel: Kernel) -> Schedule:
    """The schedule that the backend would run.

    Raises:
        Refused: if it runs none.
    """
    schedule = backend.schedule(kernel)
    if isinstance(schedule, str):
        raise Refused(schedule)
    return schedule


def altered(candidates: list[Schedule], words: str) -> Schedule:
    """The first of `candidates` of the template that `words` begins with, its choices replaced by those that follow:
    "cpu/direct.c tile_rows=2".

    Raises:
        ValueError: if there is no such template or choice.
    """
    template, *choices = words.split()
    schedule = next((s for s in candidates if s.template == template), None)
    if schedule is None:
        raise ValueError(f"no {template}: only {', '.join(sorted({s.template for s in candidates}))} for this kernel")
    values = dict(schedule.choices)
    for choice in choices:
        name, _, value = choice.partition("=")
        if name not in values:
            raise ValueError(f"{template} has no choice {name!r}; it has {', '.join(values)}")
        values[name] = int(value) if value.lstrip("-").isdigit() else value
    return replace(schedule, choices=tuple(values.items()))


@dataclass(frozen=True, slots=True)
class Made:
    """What a kernel costs beside its time.

    Attributes:
        seconds: to write its text and to compile it.
        text_bytes: how long the text is.
        packed_bytes: of the packed weight.
        packed_ratio: of these to those of the weight in float32.
        memory_bytes: of each thread beside input, output and weights, whole pages.
    """

    seconds: float
    text_bytes: int
    packed_bytes: int
    packed_ratio: float
    memory_bytes: int


def make(backend: CpuBackend, network: Network, schedule: Schedule) -> Made:
    """Compile the kernel of a network; the compiler runs only if its cache lacks the text."""
    kernel = kernel_of(network.geometry, network.dtype)
    start = time.perf_counter()
    backend.compile([(kernel, schedule)], lambda done, total: None)
    seconds = time.perf_counter() - start
    packed = _pack(backend, network, schedule, network.weights[0]).nbytes
    text = backend.source(kernel, schedule)
    memory = memory_bytes(backend, kernel, schedule)
    return Made(seconds, len(text), packed, packed / network.weights[0].nbytes, memory)


def way(backend: CpuBackend, network: Network, schedule: Schedule) -> Way:
    """One stretch of all convolutions. Input 0 is x, then come each layer's packed weight and bias."""
    kernel = kernel_of(network.geometry, network.dtype)
    depth, dtype = len(network.weights), MLX_DTYPES[network.dtype]
    prepared: list[mx.array] = []
    for weight, bias in zip(network.weights, network.biases, strict=True):
        prepared += [_pack(backend, network, schedule, weight), mx.array(bias).astype(dtype)]
    num_inputs = 1 + len(prepared)
    calls = tuple(
        Call(kernel, schedule, (num_inputs + n - 1 if n else 0, 1 + 2 * n, 2 + 2 * n), (num_inputs + n,))
        for n in range(depth)
    )
    bound = _Bound(backend.load(Stretch(num_inputs, calls, (num_inputs + depth - 1,))), network, prepared)
    return Way(bound.run, bound.output)


class _Bound:
    """A stretch on arrays that stay where they are: a run is one call of the runtime.

    Input and result begin with a line of the cache, as all that other engines allocate and as results inside of a
    stretch do; those that come from MLX do not.
    """

    def __init__(self, runner: StretchRunner, network: Network, prepared: Sequence[mx.array]):
        self._dtype = MLX_DTYPES[network.dtype]
        *out, channels = network.geometry.out_shape
        x = np.array(mx.array(network.x).astype(self._dtype).view(mx.uint8))
        self._x, self._y = _aligned(x.shape), _aligned((*out, channels * self._dtype.size))
        self._x[...] = x
        self._held = [borrow(array) for array in prepared]
        addresses = [self._x.ctypes.data, *(address for address, _ in self._held), self._y.ctypes.data]
        table = (ctypes.c_void_p * len(addresses))(*addresses)
        self._call = runner._runtime.run
        self._arguments = (runner._steps, len(runner._steps), table, runner._result_bytes, runner._threads)
        self._runner = runner

    def run(self) -> None:
        if self._call(*self._arguments):
            raise MemoryError

    def output(self) -> Array:
        self.run()
        return np.array(mx.array(self._y).view(self._dtype).astype(mx.float32))


def _aligned(shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Bytes that begin with a line of the cache."""
    memory = np.zeros(prod(shape) + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + prod(shape)].reshape(shape)


def _pack(backend: CpuBackend, network: Network, schedule: Schedule, weight: Array) -> mx.array:
    return backend.pack(network.geometry.window, schedule, mx.array(weight).astype(MLX_DTYPES[network.dtype]))


def memory_bytes(backend: CpuBackend, kernel: Kernel, schedule: Schedule) -> int:
    """Of each thread: its scratch memory and its part of what is shared."""
    runner = backend.load(Stretch.of_kernel(kernel, schedule))
    return runner._runtime.memory(runner._steps, 1, 0, runner._threads) // runner._threads
