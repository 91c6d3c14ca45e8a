"""MLX arrays as memory: the addresses of inputs, and outputs that kernels write into."""

from __future__ import annotations

import copy
import ctypes
from collections.abc import Callable
from math import prod

import mlx.core as mx

from convjit.backends import MLX_DTYPES
from convjit.kernel import DTYPES

_SMALL_BYTES = 1 << 20
"""Up to here copying a result into a new array is quicker than having MLX make one of zeros."""

_LINE = 64
"""Bytes of a line of the cache. MLX's arrays begin anywhere in one. Where each store touches two lines, kernels take up
to 1.6 times as long; where loads of weights do, 1.05 times."""


def borrow(array: mx.array) -> tuple[int, object]:
    """The address of the elements of `array`, in row order, and what keeps them there while it is held.

    Evaluates `array`. A second array object is held because an update in place would otherwise reuse the memory.
    """
    held = copy.copy(array)
    if not held.size:
        return 0, held
    try:
        view = _view(held)
    except TypeError:  # not in row order
        held = mx.contiguous(held)
        view = _view(held)
    return ctypes.addressof(view), (view, held)


def address_of(array: mx.array) -> int:
    """The address of the elements of an evaluated array in row order."""
    return ctypes.addressof(_view(array))


def _view(array: mx.array) -> ctypes.c_char:
    return ctypes.c_char.from_buffer(array)  # pyright: ignore[reportArgumentType]  MLX's stubs lack __buffer__


Allocation = tuple[int, Callable[[], mx.array]]
"""The address to write a result to, and a function that gives the array once it is written."""


def new_array(shape: tuple[int, ...], dtype: str) -> Allocation:
    """An array of this shape and storage type."""
    size = prod(shape)
    if 0 < size * DTYPES[dtype] <= _SMALL_BYTES:
        return _copied(shape, dtype)
    array = mx.zeros(shape, MLX_DTYPES[dtype])
    mx.eval(array)
    return address_of(array) if size else 0, lambda: array


def _copied(shape: tuple[int, ...], dtype: str) -> Allocation:
    import numpy as np  # not at start-up: it takes longer than all other imports of a backend

    dtypes = {"f32": np.float32, "f16": np.float16, "bf16": np.uint16}  # NumPy lacks bf16: its bits are integers
    buffer = np.empty(shape, dtypes[dtype])

    def finished() -> mx.array:
        array = mx.asarray(buffer)
        return array.view(mx.bfloat16) if dtype == "bf16" else array

    return buffer.__array_interface__["data"][0], finished


def aligned_array(shape: tuple[int, ...], dtype: str) -> Allocation:
    """An array whose elements begin with a line of the cache; making it takes MLX two evaluations."""
    size, item = prod(shape), DTYPES[dtype]
    room = mx.zeros(size + _LINE // item, MLX_DTYPES[dtype])
    mx.eval(room)
    first = -address_of(room) % _LINE // item
    array = room[first : first + size].reshape(shape)
    mx.eval(array)
    return address_of(array) if size else 0, lambda: array
