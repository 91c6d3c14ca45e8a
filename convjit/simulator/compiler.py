"""The host's C++ compiler: a kernel as C++ -> a program that runs it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from convjit.simulator.assembly import with_sites
from convjit.storage.cache import artefact, content_key

_HERE = Path(__file__).resolve().parent
_FLAGS = (
    *("-O1", "-fPIC", "-w", "-ffp-contract=off", "-fno-math-errno", "-U_FORTIFY_SOURCE"),
    *("-fno-exceptions", "-fno-rtti", "-fno-sanitize=undefined", "-isystem", str(_HERE / "include")),
)
_CHECKED_FLAGS = ("-DSIMULATOR_CHECKED=1", "-g1", "-fno-optimize-sibling-calls", "-fsanitize=thread")
_UNDEFINED_GCC = ("-fsanitize=bounds,shift-exponent,signed-integer-overflow,integer-divide-by-zero,alignment",)
_UNDEFINED_CLANG = (
    "-fsanitize=undefined",
    "-fno-sanitize-trap=all",
    "-fno-sanitize=shift-base,null,pointer-overflow,float-cast-overflow,function,vptr,bool,enum,return,unreachable,"
    "builtin,nonnull-attribute,returns-nonnull-attribute,vla-bound,object-size",
    "-mllvm",
    "-tsan-instrument-read-before-write=1",
)
_PLACE = re.compile(r"^(?P<file>[^\s:]+):(?P<line>\d+):\d+:\s+(?P<what>.*)$", re.MULTILINE)
"""The beginning of an error, of a note, or of what leads to an error."""


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


def program(source: str, kernel_text: str, *, checked: bool) -> Path:
    """The program that runs `source`, C++ made from `kernel_text`.

    Args:
        source: a translation unit, see text.py.
        kernel_text: what error messages quote.
        checked: report each access to memory to the runtime.

    Raises:
        CompileError: if the compiler rejects it, with the lines of `kernel_text` that it names.
    """
    key = content_key("simulator", "checked" if checked else "", *_identity(), source)

    def make(path: Path) -> None:
        if checked:
            assembly = path.with_suffix(".s")
            _compile(source, kernel_text, assembly, "-S", *_CHECKED_FLAGS, *_undefined())
            assembly.write_text(with_sites(assembly.read_text()))
            _link(assembly, path)
        else:
            made = path.with_suffix(".o")
            _compile(source, kernel_text, made, "-c")
            _link(made, path)

    return artefact(key, ".run", make)


@cache
def _version() -> str:
    return subprocess.run([*compiler(), "--version"], capture_output=True, text=True, check=False).stdout


def _undefined() -> tuple[str, ...]:
    return _UNDEFINED_CLANG if "clang" in _version() else _UNDEFINED_GCC


@cache
def _identity() -> tuple[str, ...]:
    """What a program depends on beyond its source: compiler, flags, runtime and headers."""
    headers = (f for f in (_HERE / "include").rglob("*") if f.is_file())
    files = sorted([*(_HERE / "runtime").iterdir(), *headers, _HERE / "assembly.py"])
    flags = (*_FLAGS, *_CHECKED_FLAGS, *_undefined())
    return (*compiler(), _version(), *flags, *(f.read_text() for f in files))


def _compile(source: str, kernel_text: str, made: Path, output: str, *flags: str) -> None:
    # Descriptors of tensor operations are template arguments: Metal takes values of classes there, C++ since C++20.
    standard = "-std=c++20" if "<MetalPerformancePrimitives/" in source else "-std=c++17"
    command = [*compiler(), *_FLAGS, standard, *flags, "-nostdinc++"]
    reads = ["-x", "c++", "-", output, "-o", str(made)]
    headers = _headers(command)
    done = _said([*command, *headers, *reads], source)
    if done.returncode and headers:  # is it the kernel, or what was precompiled by a compiler that was updated since?
        done = _said([*command, *reads], source)
    if done.returncode:
        raise CompileError(_explain(done.stderr, kernel_text))


def _headers(command: list[str]) -> tuple[str, ...]:
    """Flags that read the headers of Metal precompiled: to parse them takes longer than to compile most kernels."""
    # Without the times of its parts, which clang would compare: what they say is a part of the key.
    times = ("-Xclang", "-fno-pch-timestamp") if "clang" in _version() else ()

    def make(path: Path) -> None:
        _run([*command, *times, "-x", "c++-header", str(_HERE / "include" / "metal_stdlib"), "-o", str(path)])

    try:
        made = artefact(content_key("simulator headers", *_identity(), *command), ".gch", make)
    except CompileError:  # if it is the headers that this compiler does not take, it will say so about the kernel
        return ()
    return ("-include", str(made.with_suffix("")))


def _compile_runtime(path: Path) -> None:
    _run([*compiler(), *_FLAGS, "-std=c++17", "-c", str(_HERE / "runtime" / "runtime.cpp"), "-o", str(path)])


def _link(made: Path, path: Path) -> None:
    no_library = ("-nostdlib++",) if "clang" in _version() else ()
    _run([*compiler(), *no_library, "-o", str(path), str(made), str(runtime()), "-lm"])


def _run(command: list[str]) -> None:
    done = _said(command)
    if done.returncode:
        raise CompileError(f"{shlex.join(command)} failed:\n{done.stderr.strip()}")


def _said(command: list[str], source: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, input=source, capture_output=True, text=True, check=False)


def _explain(diagnostics: str, kernel_text: str) -> str:
    """The compiler's errors, each with the line of the kernel that it is about.

    Of an error in a header, that is the line that calls it: g++ names it before the error, clang in a note behind.
    """
    lines = kernel_text.splitlines()
    errors: list[tuple[int, str]] = []
    caller = 0
    for place in _PLACE.finditer(diagnostics):
        line, what = int(place["line"]) if place["file"] == "kernel.metal" else 0, place["what"]
        if what.startswith(("error: ", "fatal error: ")):
            errors.append((line or caller, what))
            caller = 0
        elif what.startswith("required from"):
            caller = caller or line
        elif what.startswith("note: ") and errors and not errors[-1][0]:
            errors[-1] = (line, errors[-1][1])
    if not any(line for line, _ in errors):
        return diagnostics
    return "\n".join(f"kernel.metal:{n}: {what}\n    {lines[n - 1].strip()}" for n, what in errors if n)
