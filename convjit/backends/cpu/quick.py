"""quick.c as Python sees it: compiled once, loaded once, its structures."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx

from convjit import watch
from convjit.backends import Expected, QuickCall
from convjit.backends.cpu.descriptors import knows_tracers, layout
from convjit.backends.cpu.toolchain import Toolchain

COPY = mx.array.__copy__  # pyright: ignore  MLX's stubs lack it
"""Makes another object of an array."""

_FASTCALL_OF_ONE = 0x0008  # METH_O


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
        ("none", ctypes.py_object),
        ("data", ctypes.c_long),
        ("inputs", ctypes.c_long),
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


class _MethodDef(ctypes.Structure):
    """CPython's PyMethodDef."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
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
        take, keep, hand_over, forget: see quick.c; results are given by their address.
    """

    def __init__(self, toolchain: Toolchain, run: Any):
        folder = Path(__file__).parent
        text = (folder / "quick.c").read_text().replace('#include "python.h"', (folder / "python.h").read_text())
        self._library = library = ctypes.PyDLL(str(toolchain.build(text)))
        self._run = ctypes.cast(run, ctypes.c_void_p)
        self.take, self.keep = library.cj_take, library.cj_keep
        self.hand_over, self.forget = library.cj_hand_over, library.cj_forget
        self.take.argtypes = [ctypes.c_void_p]
        self.keep.argtypes = [ctypes.c_void_p, ctypes.py_object, *[ctypes.c_void_p] * 3]
        self.hand_over.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.py_object]
        self.hand_over.restype = ctypes.py_object
        self.forget.argtypes, self.forget.restype = [ctypes.c_void_p], None
        watch.compare_by(library.cj_unchanged)

    def call(self, how: Expected, run: Run, places: Sequence[int]) -> QuickCall | None:
        """Calls of a program that is one stretch; none if this MLX's arrays cannot be looked into.

        Args:
            how: what to expect of a call.
            run: what to run.
            places: of the arrays among the arguments, in the table of addresses; -1 for one that is not needed.
        """
        found = layout()
        if found is None or not knows_tracers(found):
            return None
        arrays = iter(places)
        arguments = (_Argument * len(how.arguments))(
            *(_array(a, next(arrays)) if isinstance(a, mx.array) else _Argument(object=a) for a in how.arguments)
        )
        call = _Call(
            *(ctypes.pointer(how.watch.state), arguments, len(arguments)),
            *(mx.array, COPY, None),
            *(found.data, found.inputs),
            *(self._run, ctypes.addressof(run.steps), len(run.steps), run.threads, run.result_bytes),
            *(ctypes.addressof(run.arrays), len(run.arrays)),
            *(ctypes.pointer(run.results), run.result_place),
        )
        function = ctypes.cast(self._library.cj_quick_call, ctypes.c_void_p)
        method = _MethodDef(b"quick_call", function, _FASTCALL_OF_ONE, None)
        held = (ctypes.addressof(call), call, method, how, run)
        return _new_function(ctypes.byref(method), held, None)


def _array(example: mx.array, place: int) -> _Argument:
    format = memoryview(example).format  # pyright: ignore[reportArgumentType]  MLX's stubs lack __buffer__
    shape, numbers = example.shape, ctypes.c_ssize_t * max(1, example.ndim)
    strides = [example.itemsize * prod(shape[axis + 1 :]) for axis in range(example.ndim)]
    return _Argument(
        place=place, ndim=example.ndim, format=format.encode(), shape=numbers(*shape), strides=numbers(*strides)
    )


_new_function = ctypes.pythonapi.PyCFunction_NewEx
_new_function.argtypes = [ctypes.POINTER(_MethodDef), ctypes.py_object, ctypes.c_void_p]
_new_function.restype = ctypes.py_object
