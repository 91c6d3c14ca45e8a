"""Runs captured kernels on the host."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from convjit.simulator.capture import Launch, capture
from convjit.simulator.compiler import program
from convjit.simulator.lint import Finding
from convjit.simulator.process import Memory, run_program
from convjit.simulator.text import Buffer, HostText, host_text

_Array = npt.NDArray[Any]

MAX_THREADS = 1024
MAX_BUFFERS = 31


class KernelError(RuntimeError):
    """A kernel did what no kernel may do. The message says what, and where.

    Attributes:
        findings: the same, one by one.
    """

    def __init__(self, name: str, text: str, findings: Sequence[Finding]) -> None:
        lines = ["", *text.splitlines()]
        quoted = (f"{f}\n    {lines[f.line].strip()}" if 0 < f.line < len(lines) else str(f) for f in findings)
        super().__init__("\n".join([f"{name}:", *quoted]))
        self.findings = tuple(findings)


@dataclass(frozen=True, slots=True)
class Counters:
    """What one launch did, all its threads together.

    Attributes:
        device_bytes_read, device_bytes_written: by the accesses of all threads; no caches.
        constant_bytes_read: from the address space `constant`.
        threadgroup_bytes_read, threadgroup_bytes_written: of threadgroup variables.
        mma_operations: products of 8x8 matrices, each by one simdgroup.
        fma_operations: calls of `metal::fma`, one a component and thread.
        barriers: threadgroup barriers, one a threadgroup.
        collectives: simd functions, one a simdgroup; neither barriers nor products of matrices.
        threadgroup_memory: bytes that a threadgroup declares.
        threads: of a threadgroup.
        buffers: that the kernel takes.
    """

    device_bytes_read: int
    device_bytes_written: int
    constant_bytes_read: int
    threadgroup_bytes_read: int
    threadgroup_bytes_written: int
    mma_operations: int
    fma_operations: int
    barriers: int
    collectives: int
    threadgroup_memory: int
    threads: int
    buffers: int


@dataclass(frozen=True, slots=True)
class Execution:
    """One launch that was run.

    Attributes:
        outputs: what it wrote; what it did not is 0xff bytes, NaN in every float type, or `init_value`.
        findings: what it must not do, in the order in which it was noticed.
        counters: what it did; None if it was not checked, or if it could not run.
    """

    outputs: list[mx.array]
    findings: tuple[Finding, ...]
    counters: Counters | None


def run(function: Callable[..., Sequence[mx.array]], *arrays: mx.array, check: bool = False) -> list[mx.array]:
    """What `function(*arrays)` returns, with its Metal kernels run on the host.

    `init_value` is not part of what MLX tells about a kernel: outputs are never initialised. `simulator.metal_kernel`
    knows it.

    Args:
        function: launches `mx.fast.metal_kernel` kernels, and nothing else; returns a list of arrays.
        arrays: its arguments.
        check: watch every access to memory, see `execute`.

    Raises:
        ValueError: if the function does anything but launching kernels.
        CompileError: if a kernel is not valid.
        KernelError: if a kernel does what no kernel may do, as reading far out of bounds; with `check`, if there is
            any finding.
    """
    trace = capture(function, *arrays)
    values = dict(trace.constants) | dict(zip(trace.inputs, arrays, strict=True))
    for launch in trace.launches:
        done = execute(launch, [values[i] for i in launch.inputs], check=check)
        if done.findings:
            raise KernelError(launch.name, launch.text, done.findings)
        values.update(zip((name for name, _, _ in launch.outputs), done.outputs, strict=True))
    return [values[name] for name in trace.outputs]


def execute(
    launch: Launch,
    inputs: Sequence[mx.array],
    *,
    check: bool = False,
    init_value: float | Mapping[str, mx.array] | None = None,
) -> Execution:
    """Run one kernel in a process of its own.

    Args:
        launch: the kernel and its grid.
        inputs: the arrays that it reads, in the order of its arguments.
        check: watch every access to memory. Finds accesses out of bounds and misaligned ones, races, barriers and
            collectives that not all threads reach, reads of what was not written, outputs that are not written, integer
            overflow, and launches that Metal does not take. Without, only what ends the kernel is found.
        init_value: what the outputs hold before: a number for all of them, or arrays by the outputs' names.

    Raises:
        ValueError: if the text has no kernel of this name, or takes other arguments.
        CompileError: if the kernel is not valid.
    """
    kernel = host_text(launch.name, launch.text)
    held = {name: _held(name, shape, dtype, init_value) for name, shape, dtype in launch.outputs}
    results = [_output(shape, dtype, held[name]) for name, shape, dtype in launch.outputs]
    initialised = [held[name] is not None for name, _, _ in launch.outputs]
    memories = list(_memories(launch, kernel.buffers, inputs, results, initialised))
    findings, can_run = _limits(launch, kernel, check)
    counted: dict[str, int] = {}
    if can_run:
        ended = run_program(
            program(kernel.source, launch.text, checked=check),
            memories,
            launch.grid,
            launch.threadgroup,
            threads_wait=kernel.threads_wait,
            checked=check,
        )
        findings += [_with_line(f, kernel.line, check) for f in ended.findings]
        counted = ended.counters
    counters = None
    if check and counted:
        counters = Counters(**counted, threads=prod(launch.threadgroup), buffers=len(kernel.buffers))
    outputs = [_mlx_array(r, dtype) for r, (_, _, dtype) in zip(results, launch.outputs, strict=True)]
    return Execution(outputs, tuple(findings), counters)


def _with_line(finding: Finding, line: int, check: bool) -> Finding:
    """A finding that is about no line in particular is about the kernel."""
    if finding.line:
        return finding
    return Finding(line, finding.message if check else f"{finding.message} (check=True tells more)")


def _limits(launch: Launch, kernel: HostText, check: bool) -> tuple[list[Finding], bool]:
    """What Metal does not launch, or not as it is meant; and whether the simulator can."""
    findings: list[Finding] = []
    threads, buffers = prod(launch.threadgroup), len(kernel.buffers)
    if threads > MAX_THREADS:
        findings.append(Finding(kernel.line, f"a threadgroup of {threads} threads: the limit is {MAX_THREADS}"))
    if buffers > MAX_BUFFERS:
        findings.append(Finding(kernel.line, f"{buffers} buffers: the limit is {MAX_BUFFERS}"))
    can_run = not findings
    if check and any(g % t for g, t in zip(launch.grid, launch.threadgroup, strict=True)):
        findings.append(
            Finding(
                kernel.line,
                f"the grid {launch.grid} is not a multiple of the threadgroup {launch.threadgroup}: some threadgroups "
                "have fewer threads, or all of them",
            )
        )
    return findings, can_run


def _memories(
    launch: Launch,
    buffers: Sequence[Buffer],
    inputs: Sequence[mx.array],
    outputs: Sequence[_Array],
    initialised: Sequence[bool],
) -> Iterator[Memory]:
    """What lies behind each of a kernel's buffers."""
    given = len(inputs), len(outputs)
    taken = sum(b.role == "input" for b in buffers), sum(b.role == "output" for b in buffers)
    if given != taken:
        raise ValueError(
            f"{launch.name} reads {taken[0]} and writes {taken[1]}, the launch has {given[0]} and {given[1]}; "
            "if MLX wrote the signature, use a thread attribute in the body: without any it is malformed"
        )
    remaining_inputs, remaining_outputs = iter(inputs), zip(outputs, initialised, strict=True)
    latest = _Laid(np.empty(0, np.uint8), 1, (), (), 0)
    for buffer in buffers:
        match buffer.role:
            case "output":
                array, is_initialised = next(remaining_outputs)
                yield Memory(buffer, array.reshape(-1).view(np.uint8), array.itemsize, is_initialised)
            case "input":
                latest = _laid(next(remaining_inputs), launch.copies_inputs)
                yield Memory(buffer, latest.content, latest.element_bytes, True, latest.pointer)
            case role:
                told = {
                    "shape": np.array(latest.shape, np.int32),
                    "strides": np.array(latest.strides, np.int64),
                    "ndim": np.array([len(latest.shape)], np.int32),
                }[role]
                yield Memory(buffer, told.view(np.uint8), told.itemsize, True)


@dataclass(frozen=True, slots=True)
class _Laid:
    """An input as it lies in memory; `strides` in elements, `pointer` in bytes from the lowest address."""

    content: npt.NDArray[np.uint8]
    element_bytes: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    pointer: int


def _laid(array: mx.array, row_by_row: bool) -> _Laid:
    view = np.array(array.view(mx.uint16) if array.dtype == mx.bfloat16 else array, copy=False)
    if row_by_row or view.size == 0:
        view = np.ascontiguousarray(view).reshape(view.shape)
    steps = [(n - 1) * s for n, s in zip(view.shape, view.strides, strict=True)] if view.size else []
    below = sum(-s for s in steps if s < 0)
    size = below + sum(s for s in steps if s > 0) + view.itemsize if view.size else 0
    content = np.frombuffer(ctypes.string_at(view.ctypes.data - below, size), np.uint8)
    return _Laid(content, view.itemsize, view.shape, tuple(s // view.itemsize for s in view.strides), below)


def _held(
    name: str, shape: tuple[int, ...], dtype: mx.Dtype, init_value: float | Mapping[str, mx.array] | None
) -> mx.array | None:
    """What an output holds before the kernel runs; None if nobody has said."""
    if isinstance(init_value, Mapping):
        return init_value.get(name)
    return None if init_value is None else mx.full(shape, mx.array(init_value, dtype))


def _output(shape: tuple[int, ...], dtype: mx.Dtype, held: mx.array | None) -> _Array:
    if held is not None:
        return _host_array(held.astype(dtype).reshape(shape))
    array = np.empty(shape, _host_dtype(dtype))
    array.reshape(-1).view(np.uint8).fill(0xFF)
    return array


def _host_dtype(dtype: mx.Dtype) -> np.dtype[Any]:
    """NumPy's dtype of the same bytes; bfloat16, which it does not have, travels as uint16."""
    return np.dtype(np.uint16 if dtype == mx.bfloat16 else str(dtype).removeprefix("mlx.core."))


def _host_array(array: mx.array) -> _Array:
    return np.array(array.view(mx.uint16) if array.dtype == mx.bfloat16 else array, order="C")


def _mlx_array(array: _Array, dtype: mx.Dtype) -> mx.array:
    return mx.array(array).view(dtype) if dtype == mx.bfloat16 else mx.array(array)
