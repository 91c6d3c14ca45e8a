"""MLX arrays as memory: the addresses of inputs, and outputs that kernels write into."""

from __future__ import annotations

import copy
import ctypes
import struct
from collections.abc import Callable
from math import prod

import mlx.core as mx
import numpy as np

from convjit.backends import MLX_DTYPES
from convjit.kernel import DTYPES

_SMALL_BYTES = 1 << 20
"""Up to here copying a result into a new array is quicker than having MLX allocate it."""

_NUMPY_DTYPES = {"f32": "<f4", "f16": "<f2", "bf16": "<u2"}  # NumPy lacks bf16: its bits travel as integers


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


def _view(array: mx.array) -> ctypes.c_char:
    return ctypes.c_char.from_buffer(array)  # pyright: ignore[reportArgumentType]  MLX's stubs lack __buffer__


Allocation = tuple[int, Callable[[], mx.array]]
"""The address to write a result to, and a function that gives the array once it is written."""


def allocator(shape: tuple[int, ...], dtype: str) -> Callable[[], Allocation]:
    """Makes arrays of this shape and storage type, uninitialised; each is new, so MLX may do with it what it likes."""
    size = prod(shape)
    if size == 0:
        return lambda: (0, lambda: mx.zeros(shape, MLX_DTYPES[dtype]))
    if size * DTYPES[dtype] <= _SMALL_BYTES:
        return lambda: _copied(shape, dtype)
    return lambda: _in_place(shape, dtype)


def _as_stored(array: mx.array, dtype: str) -> mx.array:
    return array.view(mx.bfloat16) if dtype == "bf16" else array


def _copied(shape: tuple[int, ...], dtype: str) -> Allocation:
    buffer = np.empty(shape, _NUMPY_DTYPES[dtype])
    return buffer.__array_interface__["data"][0], lambda: _as_stored(mx.asarray(buffer), dtype)


def _in_place(shape: tuple[int, ...], dtype: str) -> Allocation:
    file = _UninitialisedFile(shape, _NUMPY_DTYPES[dtype])
    array = mx.load(file, format="npy", stream=mx.cpu)  # pyright: ignore[reportArgumentType]  all MLX needs of a file
    assert isinstance(array, mx.array)
    mx.eval(array)
    assert file.address is not None
    return file.address, lambda: _as_stored(array, dtype)


class _UninitialisedFile:
    """An .npy file whose elements are whatever is in the memory that they are read into.

    Loading it makes an array that MLX allocated but did not fill, and tells where its elements are: the only way
    to both without a copy.
    """

    closed = False

    def __init__(self, shape: tuple[int, ...], dtype: str):
        header = repr({"descr": dtype, "fortran_order": False, "shape": shape})
        header += " " * (-(11 + len(header)) % 64) + "\n"
        self._header = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()
        self._position = 0
        self.address: int | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = 0) -> int:
        self._position = offset + (self._position if whence == 1 else 0)
        return self._position

    def read(self, size: int) -> bytes:
        data = self._header[self._position : self._position + size]
        self._position += size
        return data

    def readinto(self, target: memoryview) -> int:
        size = len(target)
        if self._position < len(self._header):
            target[:] = self.read(size)
            return size
        if self._position == len(self._header):
            self.address = ctypes.addressof(ctypes.c_char.from_buffer(target))
        self._position += size
        return size
