"""runtime.c as Python sees it: compiled once, loaded once, its structures."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

from convjit.backends.cpu.quick import Quick
from convjit.backends.cpu.toolchain import Toolchain
from convjit.emit.render import TEMPLATES

_INCLUDED = re.compile(r'^#include "(.+)"$', re.MULTILINE)

ABSOLUTE = -1
"""The base of a place whose offset is an address."""


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
        ("in_extent", ctypes.c_long),
        ("out_extent", ctypes.c_long),
    ]


class Term(ctypes.Structure):
    """See `cj_term`."""

    _fields_ = [("tap", ctypes.c_int), ("factor", ctypes.c_double)]


class PackingOrder(ctypes.Structure):
    """See `cj_packing`."""

    _fields_ = [
        ("weight", ctypes.c_void_p),
        ("packed", ctypes.c_void_p),
        ("terms", ctypes.POINTER(Term)),
        ("tap_terms", ctypes.POINTER(ctypes.c_int)),
        ("phase_taps", ctypes.POINTER(ctypes.c_int)),
        ("phases", ctypes.c_int),
        ("kernel_taps", ctypes.c_int),
        ("channels", ctypes.c_int),
        ("groups", ctypes.c_int),
        ("group_outputs", ctypes.c_int),
        ("block_width", ctypes.c_int),
        ("last_width", ctypes.c_int),
        ("pairs", ctypes.c_int),
    ]


class Runtime:
    """The loaded runtime.

    Attributes:
        threads: how many threads kernels run on.
        packing_kernel: the address of what packs weights in a stretch.
    """

    def __init__(self, toolchain: Toolchain, threads: int):
        path = str(toolchain.build(text()))
        library = ctypes.CDLL(path)
        self.threads = threads
        self.run = library.cj_run
        self.run.argtypes = [
            *(ctypes.POINTER(Step), ctypes.c_int),
            *(ctypes.c_void_p, ctypes.c_long, ctypes.c_int),
        ]
        self.memory = library.cj_memory
        self.memory.argtypes = [ctypes.POINTER(Step), ctypes.c_int, ctypes.c_long, ctypes.c_int]
        self.memory.restype = ctypes.c_long
        self.packing_kernel = ctypes.addressof(ctypes.c_char.in_dll(library, "cj_packing_kernel"))
        self.pack = library.cj_pack
        self.pack.argtypes = [ctypes.POINTER(PackingOrder), ctypes.c_int]
        self.pack.restype = None
        self.quick = Quick(toolchain, library.cj_run)


def text() -> str:
    """runtime.c with the files that it includes."""
    folders = (Path(__file__).parent, TEMPLATES / "cpu")

    def read(name: str) -> str:
        return next(folder / name for folder in folders if (folder / name).exists()).read_text()

    return _INCLUDED.sub(lambda found: read(found[1]), read("runtime.c"))
