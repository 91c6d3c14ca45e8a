"""Finding and running the C compiler, and what is said when that fails."""

from __future__ import annotations

import ctypes
import platform
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from convjit.backends import BackendError
from convjit.backends.cpu import CpuBackend, caches, toolchain
from convjit.geometry import Geometry, plain_window
from convjit.kernel import Kernel, identity_epilogue


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVJIT_CACHE_DIR", str(tmp_path / "cache"))


THE_COMPILER = shlex.join(toolchain._compiler())


def compiler(folder: Path, script: str) -> str:
    path = folder / "my-cc"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_the_compiler_knows_this_cpu():
    found = toolchain.find()
    assert (found.machine.lanes, found.machine.registers) in [(16, 32), (8, 16), (4, 32), (4, 16)]
    assert found.version in found.fingerprint()
    assert not {"-ffast-math", "-Ofast", "-funsafe-math-optimizations", "-fassociative-math"} & {*toolchain.FLAGS}


def test_the_probe_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    log = tmp_path / "log"
    monkeypatch.setenv("CONVJIT_CC", compiler(tmp_path, f'echo run >> {log}; exec {THE_COMPILER} "$@"'))
    first = toolchain.find()
    assert toolchain.find() == first
    assert log.read_text().count("run") == 1


def test_libraries_are_kept(tmp_path: Path):
    found = toolchain.find()
    assert found.build("int one(void) { return 1; }") == found.build("int one(void) { return 1; }")
    assert found.build("int one(void) { return 2; }") != found.build("int one(void) { return 1; }")


@pytest.mark.parametrize(
    ("features", "vectors"),
    [
        ({"__AVX512F__", "__AVX2__", "__FMA__"}, (16, 32)),
        ({"__AVX2__", "__FMA__"}, (8, 16)),
        ({"__AVX2__"}, (4, 16)),
        ({"__ARM_NEON", "__aarch64__"}, (4, 32)),
        ({"__SSE2__"}, (4, 16)),
    ],
)
def test_vectors_of_a_cpu(features: set[str], vectors: tuple[int, int]):
    machine = toolchain.machine_with(features)
    assert (machine.lanes, machine.registers) == vectors and not machine.bf16_dot


@pytest.mark.parametrize(
    ("features", "is_fast"),
    [
        ({"__ARM_FEATURE_BF16_VECTOR_ARITHMETIC"}, True),
        ({"__AVX512BF16__", "__SSE4A__"}, True),  # AMD
        ({"__AVX512BF16__"}, False),  # Intel
        ({"__SSE4A__"}, False),
    ],
)
def test_dot_products_of_bf16(features: set[str], is_fast: bool):
    assert toolchain.machine_with(features).bf16_dot is is_fast


needs_x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="options of x86")


@needs_x86
@pytest.mark.parametrize(("march", "lanes"), [("x86-64-v3", 8), ("x86-64", 4), ("skylake-avx512", 16)])
def test_a_command_that_names_a_cpu_compiles_for_that_one(march: str, lanes: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CONVJIT_CC", f"{THE_COMPILER} -march={march}")
    found = toolchain.find()
    assert found.machine.lanes == lanes
    assert [word for word in found.command if word.startswith("-m")] == [f"-march={march}"]


@needs_x86
def test_every_cpu_has_a_probe_and_libraries_of_its_own(monkeypatch: pytest.MonkeyPatch):
    paths: set[Path] = set()
    for march in ("x86-64-v3", "x86-64", "x86-64-v3"):
        monkeypatch.setenv("CONVJIT_CC", f"{THE_COMPILER} -march={march}")
        paths.add(toolchain.find().build("int one(void) { return 1; }"))
    assert len(paths) == 2


def test_no_compiler_at_all(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("CONVJIT_CC", raising=False)
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setitem(sys.modules, "ziglang", None)
    with pytest.raises(BackendError, match=r"no C compiler found.*pip install ziglang.*CONVJIT_CC"):
        toolchain.find()


def test_compiler_that_is_not_there(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CONVJIT_CC", "/no/such/cc -v")
    with pytest.raises(BackendError, match=r"CONVJIT_CC is '/no/such/cc -v'"):
        toolchain.find()


def test_variable_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CONVJIT_CC", "'cc")
    with pytest.raises(BackendError, match=r"cannot read CONVJIT_CC=.*No closing quotation"):
        toolchain.find()


def test_compiler_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CONVJIT_CC", compiler(tmp_path, "echo 'no licence found' >&2; exit 3"))
    with pytest.raises(BackendError, match=r"(?s)exit status 3.*my-cc.*no licence found.*CONVJIT_CC"):
        toolchain.find()


def test_compiler_that_fails_later_names_the_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The probe works, compiling does not: a broken installation."""
    script = f'case "$*" in *-shared*) echo "ld: not found" >&2; exit 1;; *) exec {THE_COMPILER} "$@";; esac'
    monkeypatch.setenv("CONVJIT_CC", compiler(tmp_path, script))
    geometry = Geometry.of_shapes((1, 8, 3), (4, 3, 3), plain_window(1))
    kernel = Kernel(geometry, "f32", (), identity_epilogue("f32"), ("f32",))
    backend = CpuBackend()
    schedule = backend.schedule(kernel)
    assert not isinstance(schedule, str)
    with pytest.raises(BackendError, match=r"(?s)exit status 1.*ld: not found"):
        backend.compile([(kernel, schedule)], lambda done, total: None)


def test_compiler_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CONVJIT_CC", compiler(tmp_path, "sleep 50 & sleep 50"))
    monkeypatch.setattr(toolchain, "TIMEOUT", 0.2)
    monkeypatch.setattr(toolchain, "_stopped", {})
    start = time.monotonic()
    with pytest.raises(BackendError, match=r"my-cc.*was stopped after 0.2 seconds"):
        toolchain.find()
    assert time.monotonic() - start < 20
    monkeypatch.setattr(toolchain, "TIMEOUT", 1000)
    with pytest.raises(BackendError, match=r"my-cc.*was stopped after 0.2 seconds"):
        toolchain.find()


def test_compiler_flags_in_the_variable(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CONVJIT_CC", f"{THE_COMPILER} -DMEANING=42")
    library = toolchain.find().build("int meaning(void) { return MEANING; }")
    assert ctypes.CDLL(str(library)).meaning() == 42


def test_importing_the_package_starts_no_compiler():
    code = "import subprocess; subprocess.Popen = None; from convjit.backends.cpu import CpuBackend; CpuBackend()"
    subprocess.run([sys.executable, "-c", code], check=True)


def write_cache(cpu: Path, index: int, level: int, kind: str, size: str, shared: str) -> None:
    folder = cpu / "cache" / f"index{index}"
    folder.mkdir(parents=True)
    for name, text in {"level": level, "type": kind, "size": size, "shared_cpu_list": shared}.items():
        (folder / name).write_text(f"{text}\n")


def test_a_core_has_its_share_of_a_cache(tmp_path: Path):
    """Two threads a core, four cores for one second-level cache, as on some laptops."""
    (tmp_path / "topology").mkdir()
    (tmp_path / "topology" / "thread_siblings_list").write_text("0-1\n")
    write_cache(tmp_path, 0, 1, "Instruction", "64K", "0-1")
    write_cache(tmp_path, 1, 1, "Data", "48K", "0,1")
    write_cache(tmp_path, 2, 2, "Unified", "4M", "0-5,8-9")
    assert caches._linux(1, tmp_path) == 48 << 10
    assert caches._linux(2, tmp_path) == 1 << 20
    assert caches._linux(3, tmp_path) is None


def test_a_system_that_does_not_tell_its_caches(tmp_path: Path):
    write_cache(tmp_path, 0, 1, "Data", "48K", "0")  # and no topology
    write_cache(tmp_path, 1, 2, "Unified", "", "0")
    assert caches._linux(1, tmp_path) is None
    assert caches._linux(2, tmp_path) is None
    assert caches._linux(1, tmp_path / "none") is None


def test_caches_of_this_machine_are_plausible():
    for level in (1, 2):
        assert (size := caches.cache_bytes(level)) is None or 4 << 10 <= size <= 64 << 20
