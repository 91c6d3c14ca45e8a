"""What a call takes of its arrays: how much it reads, and how the runtime cuts it into images and units."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

from convjit.backends import Call
from convjit.backends.cpu.packing import tables
from convjit.backends.cpu.runtime import PackingOrder
from convjit.emit import cpu as emit
from convjit.kernel import DTYPES, Elementwise, Kernel, Norm, OtherKernel, Pack, Pool, PoolGradient, Rearrange, Softmax
from convjit.schedule.cpu import useful_threads
from convjit.schedule.nest import nest

PACKED_BY_THREAD = 1 << 16
"""Bytes of a weight: a thread that packs less is not worth waking."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a call takes of its arrays.

    Attributes:
        extents: the batch, the outermost extent of the input and that of the output.
        batch_steps: bytes from one image to the next, in what is read and then in what is written; 0 where kernels find
            images by themselves, and for what all images share.
        read_bytes: of each array that is read. A shorter one would be read beyond its end.
        result_shapes: of what is written.
        threads: how many are worth waking.
        numbers: what the kernel reads ahead of its arrays; None for most.
    """

    extents: tuple[int, int, int]
    batch_steps: tuple[int, ...]
    read_bytes: tuple[int, ...]
    result_shapes: tuple[tuple[int, ...], ...]
    threads: int
    numbers: ctypes.Array[ctypes.c_long] | PackingOrder | None = None


def footprint(call: Call) -> Footprint:
    """That of a call of any kernel."""
    if isinstance(call.kernel, Pack):
        return _of_pack(call, call.kernel)
    if isinstance(call.kernel, Kernel):
        return _of_convolution(call, call.kernel)
    kernel = call.kernel
    extents, batch_steps = _OF_KIND[type(kernel)](kernel)
    read = zip(kernel.operand_shapes, kernel.operand_dtypes, strict=True)
    read_bytes = tuple(prod(shape) * DTYPES[dtype] for shape, dtype in read)
    numbers = emit.numbers(kernel, call.schedule)
    return Footprint(
        extents,
        batch_steps or (0,) * (len(read_bytes) + len(kernel.result_dtypes)),
        read_bytes,
        call.result_shapes,
        useful_threads(kernel),
        (ctypes.c_long * len(numbers))(*numbers) if numbers else None,
    )


_Cut = tuple[tuple[int, int, int], tuple[int, ...]]
"""Extents and batch steps; none where all are 0."""


def _of_elementwise(kernel: Elementwise) -> _Cut:
    extent = kernel.collapsed().shape[0]
    return (1, extent, extent), ()


def _of_norm(kernel: Norm) -> _Cut:
    return (kernel.images, kernel.pixels, kernel.collapsed().shape[0]), ()


def _of_pool(kernel: Pool | PoolGradient) -> _Cut:
    geometry = kernel.geometry
    shapes = (*kernel.operand_shapes, *kernel.result_shapes)
    steps = tuple(prod(shape) // geometry.batch * DTYPES[kernel.dtype] for shape in shapes)
    return (geometry.batch, geometry.in_size[0], geometry.out_size[0]), steps


def _of_rearrange(kernel: Rearrange) -> _Cut:
    return (1, 1, 1), ()


def _of_softmax(kernel: Softmax) -> _Cut:
    return (1, kernel.rows, kernel.rows), ()


_OF_KIND: dict[type[OtherKernel], Callable[[Any], _Cut]] = {
    Elementwise: _of_elementwise,
    Norm: _of_norm,
    Pool: _of_pool,
    PoolGradient: _of_pool,
    Rearrange: _of_rearrange,
    Softmax: _of_softmax,
}


def _of_convolution(call: Call, kernel: Kernel) -> Footprint:
    geometry, loops = kernel.geometry, nest(kernel)
    first, second = kernel.operand_shapes
    size = DTYPES[kernel.dtype]
    packed = emit.packing(geometry.window, second, call.schedule)
    weight = packed.floats * 4 if packed else prod(second) * size
    of_input, of_output = (prod(shape[1:]) for shape in (geometry.in_shape, geometry.out_shape))
    if kernel.operation == "weight_gradient":
        steps = (of_input * size, of_output * size, 0)
    else:
        steps = (
            of_input * size,
            weight if call.has_own_weights else 0,
            *(prod(e.shape[1:]) * DTYPES[e.dtype] if e.shape[0] > 1 else 0 for e in kernel.extras),
            *(of_output * DTYPES[dtype] for dtype in kernel.result_dtypes),
        )
    return Footprint(
        (geometry.batch, loops.in_size[loops.outermost], loops.out_size[loops.outermost]),
        steps,
        (
            prod(first) * size,
            weight * (geometry.batch if call.has_own_weights else 1),
            *(prod(e.shape) * DTYPES[e.dtype] for e in kernel.extras),
        ),
        call.result_shapes,
        useful_threads(kernel),
    )


def _of_pack(call: Call, kernel: Pack) -> Footprint:
    found = tables(kernel.window, call.schedule, kernel.shape)
    assert found is not None, "a kernel that reads its weight as it is has none packed"
    size = 4 * prod(kernel.shape)
    return Footprint(
        (found.weights, 1, 1),
        (size // found.weights, 4 * found.floats),
        (size,),
        ((found.all_floats,),),
        max(1, size // PACKED_BY_THREAD),
        found.arguments,
    )
