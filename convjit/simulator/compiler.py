"""The host's C++ compiler: a kernel as C++ -> a loaded library."""

from __future__ import annotations

import ctypes
import os
import re
import shlex
import shutil
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from convjit.cache import artefact, content_key

_HERE = Path(__file__).resolve().parent
_FLAGS = ("-std=c++17", "-O1", "-fPIC", "-w", "-ffp-contract=off", "-fno-math-errno", "-U_FORTIFY_SOURCE")
_KERNEL_FLAGS = ("-nostdinc++", "-fno-exceptions", "-fno-rtti", "-isystem", str(_HERE / "include"))


class CompileError(RuntimeError):
    """The host's compiler rejects a kernel, or there is no compiler. The message quotes the kernel's own lines."""


@cache
def compiler() -> tuple[str, ...]:
    """The command of a C++ compiler: `CONVJIT_CXX`, else the system's, else the one of the `ziglang` package.

    Raises:
        CompileError: if there is none.
    """
    if chosen := os.environ.get("CONVJIT_CXX"):
        command = tuple(shlex.split(chosen))
        if shutil.which(command[0]) is None:
            raise CompileError(f"CONVJIT_CXX is {chosen!r}, but there is no program {command[0]!r}")
        return command
    for name in ("c++", "clang++", "g++"):
        if path := shutil.which(name):
            return (path,)
    if find_spec("ziglang"):
        return (sys.executable, "-m", "ziglang", "c++")
    raise CompileError("no C++ compiler found: install one (pip install ziglang will do) or set CONVJIT_CXX")


def runtime() -> Path:
    """The object file that every kernel is linked with.

    Raises:
        CompileError: if there is no C++ compiler that works.
    """
    return artefact(content_key("simulator runtime", *_identity()), ".o", _compile_runtime)


def library(source: str, kernel_text: str) -> ctypes.CDLL:
    """The loaded library of `source`, C++ made from `kernel_text`.

    Raises:
        CompileError: if the compiler rejects it, with the lines of `kernel_text` that it names.
    """
    key = content_key("simulator", *_identity(), source)
    return _load(artefact(key, ".so", lambda path: _compile(source, kernel_text, path)))


@cache
def _load(path: Path) -> ctypes.CDLL:
    loaded = ctypes.CDLL(str(path))
    loaded.simulator_run.restype = ctypes.c_char_p
    loaded.simulator_allocate.restype = ctypes.c_void_p
    loaded.simulator_allocate.argtypes = [ctypes.c_size_t]
    loaded.simulator_free.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    return loaded


@cache
def _identity() -> tuple[str, ...]:
    """What a library depends on beyond its source: compiler, flags, runtime and headers."""
    version = subprocess.run([*compiler(), "--version"], capture_output=True, text=True, check=False).stdout
    files = sorted([_HERE / "runtime.cpp", *(_HERE / "include").iterdir()])
    return (*compiler(), version, *_FLAGS, *(f.read_text() for f in files))


def _compile(source: str, kernel_text: str, path: Path) -> None:
    command = [*compiler(), *_FLAGS, *_KERNEL_FLAGS, "-shared", "-o", str(path), str(runtime()), "-x", "c++", "-"]
    done = subprocess.run(command, input=source, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CompileError(_explain(done.stderr, kernel_text))


def _compile_runtime(path: Path) -> None:
    command = [*compiler(), *_FLAGS, "-I", str(_HERE / "include"), "-c", str(_HERE / "runtime.cpp"), "-o", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CompileError(f"{shlex.join(command)} failed:\n{done.stderr.strip()}")


def _explain(diagnostics: str, kernel_text: str) -> str:
    """The compiler's errors, each with the line of the kernel that it is about."""
    lines = kernel_text.splitlines()
    errors = re.findall(r"^kernel\.metal:(\d+):\d+: ((?:fatal )?error: .*)$", diagnostics, re.MULTILINE)
    if not errors:
        return diagnostics
    return "\n".join(f"kernel.metal:{n}: {what}\n    {lines[int(n) - 1].strip()}" for n, what in errors)
