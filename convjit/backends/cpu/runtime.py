"""runtime.c as Python sees it: compiled once, loaded once, its structures."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from convjit import words
from convjit.backends import BackendError
from convjit.backends.cpu.toolchain import Toolchain


class Place(ctypes.Structure):
    """Where an array of a kernel's call lies: see `cj_place`."""

    _fields_ = [("base", ctypes.c_int), ("offset", ctypes.c_long), ("batch_step", ctypes.c_long)]


class Step(ctypes.Structure):
    """One kernel of a stretch: see `cj_step`."""

    _fields_ = [
        ("kernel", ctypes.c_void_p),
        ("places", ctypes.POINTER(Place)),
        ("num_places", ctypes.c_int),
        ("threads", ctypes.c_int),
        ("batch", ctypes.c_long),
    ]


class PackingOrder(ctypes.Structure):
    """See `cj_packing`."""

    _fields_ = [
        ("weight", ctypes.c_void_p),
        ("packed", ctypes.c_void_p),
        ("taps", ctypes.POINTER(ctypes.c_int)),
        ("phase_taps", ctypes.POINTER(ctypes.c_int)),
        ("phases", ctypes.c_int),
        ("kernel_taps", ctypes.c_int),
        ("channels", ctypes.c_int),
        ("groups", ctypes.c_int),
        ("group_outputs", ctypes.c_int),
        ("block_width", ctypes.c_int),
        ("last_width", ctypes.c_int),
    ]


class Runtime:
    """The loaded runtime.

    Attributes:
        threads: how many threads kernels run on.
    """

    def __init__(self, toolchain: Toolchain):
        text = Path(__file__).with_name("runtime.c").read_text()
        path = str(toolchain.build(text))
        library = ctypes.CDLL(path)
        self.threads = _threads()
        self.run = library.cj_run
        self.run.argtypes = [
            *(ctypes.POINTER(Step), ctypes.c_int),
            *(ctypes.c_void_p, ctypes.c_long, ctypes.c_long, ctypes.c_int),
        ]
        self.pack = library.cj_pack
        self.pack.argtypes = [ctypes.POINTER(PackingOrder), ctypes.c_int]
        self.pack.restype = None
        same_words = ctypes.PyDLL(path).cj_same_words  # keeps the interpreter's lock: it reads Python's own objects
        same_words.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int]
        words.compare_by(same_words)


def _threads() -> int:
    """`CONVJIT_NUM_THREADS`, or as many as there are CPUs for this process."""
    chosen = os.environ.get("CONVJIT_NUM_THREADS")
    if chosen:
        if not chosen.isdigit() or int(chosen) < 1:
            raise BackendError(f"CONVJIT_NUM_THREADS must be a positive number, got {chosen!r}")
        return int(chosen)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
