"""The C compiler: which one, what it knows about this CPU, and text -> shared library."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from convjit.backends import BackendError
from convjit.backends.cpu.caches import cache_bytes
from convjit.schedule.cpu.machine import Machine
from convjit.storage import cache

FLAGS = ("-O2", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi", "-shared", "-fPIC")
"""Never -ffast-math or a part of it that changes results: linked with it, a library makes the whole process flush
denormals."""

_LIBRARIES = ("-lm", "-lpthread", *(("-Wl,-undefined,dynamic_lookup",) if sys.platform == "darwin" else ()))
"""quick.c calls Python, which is there when it is loaded; Apple's linker wants to be told so."""

_SELECTS_CPU = ("-march", "-mcpu", "-target", "--target")
"""Words of a command that already says what to compile for."""

_FEATURES = ("__AVX", "__SSE", "__FMA", "__F16C", "__ARM_", "__aarch64__")

TIMEOUT = 60.0
"""Seconds. A kernel takes a tenth of one; zig builds its own libraries once, in four."""

_stopped: dict[str, str] = {}
"""Compilers that hung, and what was said then: nobody waits for the same one twice in a process."""

_HELP = "install a C compiler (gcc or clang), run `pip install ziglang`, or set CONVJIT_CC to a compiler that works"


@dataclass(frozen=True, slots=True)
class Toolchain:
    """A compiler that can be run, and the CPU that it compiles for.

    Attributes:
        command: the compiler and the flags that select this CPU.
        version: as the compiler tells it.
        features: the compiler's names for the CPU's abilities, such as "__AVX512F__"; part of every key.
    """

    command: tuple[str, ...]
    version: str
    features: tuple[str, ...]

    @property
    def machine(self) -> Machine:
        """What schedules depend on."""
        return machine_with(self.features)

    def fingerprint(self) -> str:
        """What a compiled file depends on beyond its text."""
        return repr((self.command, FLAGS, self.version, self.features))

    def build(self, text: str) -> Path:
        """The shared library of a C file, compiled now or in an earlier process.

        Raises:
            BackendError: if the compiler fails or hangs.
        """
        return cache.artefact(
            cache.content_key(self.fingerprint(), text), ".so", lambda path: self._compile(text, path)
        )

    def _compile(self, text: str, library: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="convjit-") as folder:
            source = Path(folder, "kernel.c")
            source.write_text(text)
            _run([*self.command, *FLAGS, "-o", str(library), str(source), *_LIBRARIES])


def find() -> Toolchain:
    """The compiler to use: `$CONVJIT_CC`, else cc, clang or gcc, else the `ziglang` package.

    What it says about itself and the CPU is kept on disk: asking takes ten milliseconds, which is felt at start-up.

    Raises:
        BackendError: if there is none, or the one there is does not work.
    """
    compiler = _compiler()
    program = os.path.realpath(compiler[0])
    status = os.stat(program)
    key = cache.content_key("features", repr((compiler, program, status.st_mtime_ns, status.st_size)), cpu())

    def probe(file: Path) -> None:
        file.write_text(json.dumps(asdict(_probe(compiler))))

    found = json.loads(cache.artefact(key, ".json", probe).read_text())
    return Toolchain(tuple(found["command"]), found["version"], tuple(found["features"]))


def _compiler() -> tuple[str, ...]:
    """The command that runs the compiler, its first word an absolute path."""
    try:
        chosen = shlex.split(os.environ.get("CONVJIT_CC", ""))
    except ValueError as error:
        raise BackendError(f"cannot read CONVJIT_CC={os.environ['CONVJIT_CC']!r}: {error}; {_HELP}") from error
    if chosen:
        program = shutil.which(chosen[0])
        if program is None:
            raise BackendError(f"CONVJIT_CC is {shlex.join(chosen)!r}, but there is no program {chosen[0]!r}; {_HELP}")
        return (os.path.abspath(program), *chosen[1:])
    for name in ("cc", "clang", "gcc"):
        if program := shutil.which(name):
            return (os.path.abspath(program),)
    ziglang = importlib.util.find_spec("ziglang")
    if ziglang is None or ziglang.origin is None:
        raise BackendError(f"no C compiler found (looked for cc, clang, gcc and the ziglang package); {_HELP}")
    return (str(Path(ziglang.origin).with_name("zig")), "cc", "-fno-sanitize=all")


def cpu() -> str:
    """What tells this CPU from others: a cache folder may be shared between machines."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return f"{platform.machine()} {platform.processor()} {platform.version()}"
    with cpuinfo.open() as file:
        first_core = file.read(8192).split("\n\n")[0].splitlines()
    told_apart = ("model name", "flags", "Features", "CPU implementer", "CPU part", "CPU variant")
    return "\n".join([platform.machine(), *(line for line in first_core if line.startswith(told_apart))])


def _probe(compiler: tuple[str, ...]) -> Toolchain:
    """Ask the compiler about itself and the CPU, through its predefined macros: this CPU, or the one that it is told
    to compile for."""
    told = any(word.startswith(_SELECTS_CPU) for word in compiler)
    for selection in ((),) if told else (("-march=native",), ("-mcpu=native",), ()):
        command = (*compiler, *selection)
        try:
            listing = _run([*command, "-dM", "-E", "-x", "c", os.devnull])
        except BackendError:
            if not selection:
                raise
            continue
        macros = dict(line.split(" ", 2)[1:] for line in listing.splitlines() if line.count(" ") >= 2)
        features = tuple(sorted(name for name in macros if name.startswith(_FEATURES)))
        return Toolchain(command, macros.get("__VERSION__", "unknown").strip('"'), features)
    raise AssertionError("the last selection is empty")


def machine_with(features: Collection[str]) -> Machine:
    """The CPU that has `features`, with the caches of the one that this process runs on."""
    lanes, registers = _vectors(features)
    sizes = {f"l{level}_bytes": size for level in (1, 2) if (size := cache_bytes(level))}
    return Machine(lanes, registers, bf16_dot=_has_fast_bf16_dot(features), **sizes)


def _has_fast_bf16_dot(features: Collection[str]) -> bool:
    """Intel's `vdpbf16ps` takes as long as four multiply-adds of floats, and does the work of two (measured on Emerald
    Rapids); AMD's takes as long as two. SSE4a is AMD's alone."""
    if "__ARM_FEATURE_BF16_VECTOR_ARITHMETIC" in features:
        return True
    return "__AVX512BF16__" in features and "__SSE4A__" in features


def _vectors(features: Collection[str]) -> tuple[int, int]:
    """Floats in a vector register, and how many registers there are."""
    if "__AVX512F__" in features:
        return 16, 32
    if "__AVX2__" in features and "__FMA__" in features:
        return 8, 16
    if "__ARM_NEON" in features and "__aarch64__" in features:
        return 4, 32
    return 4, 16


def _run(command: Sequence[str]) -> str:
    """The output of a compiler.

    Raises:
        BackendError: if it cannot be started, fails, or takes longer than `TIMEOUT`, now or earlier.
    """
    if command[0] in _stopped:
        raise BackendError(_stopped[command[0]])
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
    except OSError as error:
        raise BackendError(f"cannot run {shlex.join(command)}: {error.strerror}; {_HELP}") from error
    try:
        output, errors = process.communicate(timeout=TIMEOUT)
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)  # the compiler's own children too
        process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            _stopped[command[0]] = f"{shlex.join(command)} was stopped after {TIMEOUT:g} seconds; {_HELP}"
            raise BackendError(_stopped[command[0]]) from None
        raise
    if process.returncode:
        complaint = "\n".join(errors.decode(errors="replace").splitlines()[:10]) or "it printed no error"
        failure = f"the C compiler failed with exit status {process.returncode}"
        raise BackendError(f"{failure}\n  {shlex.join(command)}\n{complaint}\n{_HELP}")
    return output.decode(errors="replace")
