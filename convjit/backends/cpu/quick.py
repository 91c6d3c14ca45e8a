"""quick.c as Python sees it: compiled once, loaded once, its structures."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx

from convjit.backends import Expected, QuickCall
from convjit.backends.cpu.descriptors import Layout, knows_tracers, layout
from convjit.backends.cpu.toolchain import Toolchain
from convjit.guards import watch

COPY = mx.array.__copy__  # pyright: ignore  MLX's stubs lack it
"""Makes another object of an array."""


_Layout = ctypes.c_long * len(Layout._fields)
"""See `cj_layout`."""


class _Kept(ctypes.Structure):
    _fields_ = [
        ("array", ctypes.c_void_p),
        ("address", ctypes.c_void_p),
        ("descriptor_owners", ctypes.c_void_p),
        ("data_owners", ctypes.c_void_p),
        ("taken", ctypes.c_int),
    ]


class Results(ctypes.Structure):
    """See `cj_results`."""

    _fields_ = [("kept", _Kept * 2), ("oldest", ctypes.c_int)]


class _Argument(ctypes.Structure):
    """See `cj_argument`."""

    _fields_ = [
        ("object", ctypes.py_object),
        ("place", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.POINTER(ctypes.c_ssize_t)),
        ("strides", ctypes.POINTER(ctypes.c_ssize_t)),
    ]


class _Call(ctypes.Structure):
    """See `cj_quick`."""

    _fields_ = [
        ("state", ctypes.POINTER(watch.State)),
        ("arguments", ctypes.POINTER(_Argument)),
        ("num_arguments", ctypes.c_long),
        ("array_type", ctypes.py_object),
        ("copy", ctypes.py_object),
        ("layout", _Layout),
        ("run", ctypes.c_void_p),
        ("steps", ctypes.c_void_p),
        ("num_steps", ctypes.c_int),
        ("threads", ctypes.c_int),
        ("result_bytes", ctypes.c_long),
        ("arrays", ctypes.c_void_p),
        ("num_arrays", ctypes.c_long),
        ("results", ctypes.POINTER(Results)),
        ("result_place", ctypes.c_long),
    ]


class Run(NamedTuple):
    """What `cj_run` needs besides the arrays, and where those of a call go.

    Attributes:
        steps: an array of `runtime.Step`.
        threads, result_bytes: as for `cj_run`.
        arrays: the table of addresses; those that no call changes are filled in.
        results: of the only result.
        result_place: in the table.
        held: what all this points to.
    """

    steps: ctypes.Array[Any]
    threads: int
    result_bytes: int
    arrays: ctypes.Array[ctypes.c_void_p]
    results: Results
    result_place: int
    held: Sequence[object]


class Quick:
    """The loaded library. Its functions keep the interpreter's lock, for they handle Python's objects.

    Attributes:
        take, keep, forget: see quick.c; results are given by their address.
    """

    def __init__(self, toolchain: Toolchain, run: Any):
        library = ctypes.PyDLL(str(toolchain.build(text())))
        self._run = ctypes.cast(run, ctypes.c_void_p)
        self.take, self.keep, self.forget = library.cj_take, library.cj_keep, library.cj_forget
        self.take.argtypes, self.take.restype = [ctypes.c_void_p, ctypes.py_object], ctypes.py_object
        self.keep.argtypes, self.keep.restype = [ctypes.c_void_p, ctypes.py_object, *[ctypes.c_void_p] * 3], None
        self.forget.argtypes, self.forget.restype = [ctypes.c_void_p], None
        self._new_call = library.cj_new_call
        self._new_call.argtypes, self._new_call.restype = [ctypes.py_object], ctypes.py_object
        self._is_plain = library.cj_is_plain
        self._is_plain.argtypes = [ctypes.py_object, ctypes.c_void_p]
        watch.compare_by(library.cj_unchanged)

    @cached_property
    def layout(self) -> Layout | None:
        """The layout of this MLX's descriptors, if `cj_is_plain` knows tracers by it."""
        found = layout()
        if found is None:
            return None
        numbers = _Layout(*found)
        return found if knows_tracers(lambda array: self._is_plain(array, numbers)) else None

    def call(self, how: Expected, run: Run, places: Sequence[int]) -> QuickCall | None:
        """Calls of a program that is one stretch; none if this MLX's arrays cannot be looked into.

        Args:
            how: what to expect of a call.
            run: what to run.
            places: of the arrays among the arguments, in the table of addresses; -1 for one that is not needed.
        """
        found = self.layout
        if found is None:
            return None
        arrays = iter(places)
        arguments = (_Argument * len(how.arguments))(
            *(_array(a, next(arrays)) if isinstance(a, mx.array) else _Argument(object=a) for a in how.arguments)
        )
        call = _Call(
            *(ctypes.pointer(how.watch.state), arguments, len(arguments)),
            *(mx.array, COPY, _Layout(*found)),
            *(self._run, ctypes.addressof(run.steps), len(run.steps), run.threads, run.result_bytes),
            *(ctypes.addressof(run.arrays), len(run.arrays)),
            *(ctypes.pointer(run.results), run.result_place),
        )
        constants = [a for a in how.arguments if not isinstance(a, mx.array)]
        return self._new_call((ctypes.addressof(call), call, how.watch, constants, run))


def text() -> str:
    """quick.c with the file that it includes."""
    folder = Path(__file__).parent
    return (folder / "quick.c").read_text().replace('#include "python.h"', (folder / "python.h").read_text())


def _array(example: mx.array, place: int) -> _Argument:
    format = memoryview(example).format  # pyright: ignore[reportArgumentType]  MLX's stubs lack __buffer__
    shape, numbers = example.shape, ctypes.c_ssize_t * max(1, example.ndim)
    strides = [example.itemsize * prod(shape[axis + 1 :]) for axis in range(example.ndim)]
    return _Argument(
        place=place, ndim=example.ndim, format=format.encode(), shape=numbers(*shape), strides=numbers(*strides)
    )
