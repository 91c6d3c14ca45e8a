"""Runs captured kernels on the host."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from convjit.simulator.capture import Launch, capture
from convjit.simulator.compiler import library
from convjit.simulator.text import Buffer, host_text

_Bytes = npt.NDArray[Any]
_one_at_a_time = threading.Lock()


class KernelError(RuntimeError):
    """A kernel did what no kernel may do. The message says what, and where."""


def run(function: Callable[..., Sequence[mx.array]], *arrays: mx.array) -> list[mx.array]:
    """What `function(*arrays)` returns, with its Metal kernels run on the host.

    Args:
        function: launches `mx.fast.metal_kernel` kernels, and nothing else; returns a list of arrays.
        arrays: its arguments.

    Raises:
        ValueError: if the function does anything but launching kernels.
        CompileError: if a kernel is not valid.
        KernelError: if a kernel does what no kernel may do, as reading far out of bounds.
    """
    trace = capture(function, *arrays)
    values = dict(trace.constants) | dict(zip(trace.inputs, arrays, strict=True))
    for launch in trace.launches:
        results = execute(launch, [values[i] for i in launch.inputs])
        values.update(zip((name for name, _, _ in launch.outputs), results, strict=True))
    return [values[name] for name in trace.outputs]


def execute(launch: Launch, inputs: Sequence[mx.array]) -> list[mx.array]:
    """Run one kernel; what it does not write is 0xff bytes, which is NaN in every float type.

    `init_value` is not part of what MLX tells about a kernel: outputs are never initialised.

    Raises:
        CompileError, KernelError: as in `run`.
    """
    kernel = host_text(launch.name, launch.text)
    compiled = library(kernel.source, launch.text)
    host_inputs = [_host_array(a) for a in inputs]
    results = [np.empty(shape, _host_dtype(dtype)) for _, shape, dtype in launch.outputs]
    with _one_at_a_time, ExitStack() as stack:
        remaining = iter(results)
        buffers: list[int] = []
        for array, is_output in _arguments(kernel.buffers, host_inputs, remaining):
            buffers.append(stack.enter_context(_device_buffer(compiled, array, is_output)))
        error = compiled.simulator_run(
            (ctypes.c_void_p * len(buffers))(*buffers),
            (ctypes.c_uint32 * 3)(*launch.grid),
            (ctypes.c_uint32 * 3)(*launch.threadgroup),
            int(kernel.threads_wait),
        )
        if error:
            raise KernelError(f"{launch.name}: {error.decode()}")
    return [_mlx_array(r, dtype) for r, (_, _, dtype) in zip(results, launch.outputs, strict=True)]


def _arguments(
    buffers: Sequence[Buffer], inputs: Sequence[_Bytes], outputs: Iterator[_Bytes]
) -> Iterator[tuple[_Bytes, bool]]:
    """The array behind each of a kernel's buffers, and whether the kernel writes it."""
    remaining = iter(inputs)
    latest = np.empty(0)
    for buffer in buffers:
        match buffer.role:
            case "output":
                yield next(outputs), True
            case "input":
                latest = next(remaining)
                yield latest, False
            case "shape":
                yield np.array(latest.shape, np.int32), False
            case "strides":
                yield np.array([s // latest.itemsize for s in latest.strides], np.int64), False
            case _:
                yield np.array([latest.ndim], np.int32), False


@contextmanager
def _device_buffer(compiled: ctypes.CDLL, array: _Bytes, is_output: bool) -> Generator[int]:
    """The address of a buffer as large as `array`: a copy of it, or what is copied into it at the end."""
    address = compiled.simulator_allocate(array.nbytes)
    if not address:
        raise MemoryError(f"no memory for a buffer of {array.nbytes} bytes")
    try:
        if not is_output:
            ctypes.memmove(address, array.ctypes.data, array.nbytes)
        yield address
        if is_output:
            ctypes.memmove(array.ctypes.data, address, array.nbytes)
    finally:
        compiled.simulator_free(address, array.nbytes)


def _host_dtype(dtype: mx.Dtype) -> np.dtype[Any]:
    """NumPy's dtype of the same bytes; bfloat16, which it does not have, travels as uint16."""
    return np.dtype(np.uint16 if dtype == mx.bfloat16 else str(dtype).removeprefix("mlx.core."))


def _host_array(array: mx.array) -> _Bytes:
    return np.array(array.view(mx.uint16) if array.dtype == mx.bfloat16 else array, order="C")


def _mlx_array(array: _Bytes, dtype: mx.Dtype) -> mx.array:
    return mx.array(array).view(dtype) if dtype == mx.bfloat16 else mx.array(array)
