"""Kernels that are compiled for other CPUs than this one: AVX2 and SSE2 run here, NEON under qemu-aarch64.

A small sample here; `make neon-test` runs NEON_COUNT kernels and says what it needs.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import test_cpu_winograd
import test_epilogue_ops
from cross import CrossBackend, arm
from kinds import RANDOM, check
from sample import layer_geometry, random_geometry, random_kernel, random_numbers

from convjit.backends.cpu import CpuBackend, quick, runtime, toolchain
from convjit.kernel import AnyKernel, Kernel
from convjit.schedule import Schedule
from convjit.schedule.cpu import candidates
from convjit.schedule.cpu.machine import Machine

COUNT = int(os.environ.get("NEON_COUNT", "12"))
TEMPLATES = ("depthwise", "direct", "dot", "winograd", *RANDOM)

LANES = {"x86-64": 4, "x86-64-v3": 8, "aarch64": 4}


@pytest.fixture(scope="module", params=LANES)
def elsewhere(request: pytest.FixtureRequest) -> Iterator[CpuBackend]:
    """The backend of another CPU, whose kernels can be run."""
    name = str(request.param)
    with pytest.MonkeyPatch.context() as patch:
        if name == "aarch64":
            if (emulation := arm()) is None:
                pytest.skip("no aarch64 compiler or no qemu-aarch64; see `make neon-test`")
            host = CpuBackend()._runtime
            patch.setenv("CONVJIT_CC", emulation.compiler)
            backend = CrossBackend(toolchain.find(), host, emulation.emulator)
        else:
            if platform.machine() != "x86_64":
                pytest.skip("not an x86 CPU")
            patch.setenv("CONVJIT_CC", f"{shlex.join(toolchain._compiler())} -march={name}")
            backend = CpuBackend()
        machine = backend._toolchain.machine
        assert machine.lanes == LANES[name]
        backend.compile([case(machine, number) for number in range(COUNT)], lambda done, total: None)
        yield backend


def case(machine: Machine, number: int) -> tuple[AnyKernel, Schedule]:
    """A layer as networks have them or any other, and one of its schedules; the templates in turn."""
    template = TEMPLATES[number % len(TEMPLATES)]
    rng = np.random.default_rng([17, number])
    if template in RANDOM:
        return RANDOM[template](rng, machine)
    while True:
        geometry = random_geometry(rng) if rng.random() < 0.3 else layer_geometry(rng)
        kernel = random_kernel(rng, str(rng.choice(["f32", "f32", "f16", "bf16"])), geometry)
        schedules = [s for s in candidates(kernel.any_batch(), machine) if s.template == f"cpu/{template}.c"]
        if schedules:
            return kernel, schedules[rng.integers(len(schedules))]


@pytest.mark.parametrize("number", range(COUNT))
@pytest.mark.usefixtures("guarded_memory")
def test_kernel(elsewhere: CpuBackend, number: int):
    kernel, schedule = case(elsewhere._toolchain.machine, number)
    if isinstance(kernel, Kernel) and schedule.template == "cpu/winograd.c":
        test_cpu_winograd.check(elsewhere, kernel, schedule, random_numbers(np.random.default_rng(number), kernel))
    else:
        check(elsewhere, kernel, schedule, number)


@pytest.mark.usefixtures("guarded_memory")
def test_functions(elsewhere: CpuBackend):
    test_epilogue_ops.test_functions(elsewhere)


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
@pytest.mark.usefixtures("guarded_memory")
def test_half_types(elsewhere: CpuBackend, dtype: str):
    test_epilogue_ops.test_rounding_to_half(elsewhere, dtype)


def clang() -> list[str] | None:
    """A clang that compiles for any CPU; None where there is none."""
    if program := shutil.which("clang"):
        return [program]
    if (package := importlib.util.find_spec("ziglang")) and package.origin:
        return [str(Path(package.origin).with_name("zig")), "cc"]
    return None


@pytest.mark.parametrize(
    ("target", "machine"),
    [
        ("aarch64-linux-gnu", Machine(4, 32)),
        ("aarch64-macos", Machine(4, 32)),
        ("x86_64-linux-gnu -mavx2 -mfma -mf16c", Machine(8, 16)),
        ("x86_64-linux-gnu -mavx512f -mavx512bw -mavx512dq -mavx512vl", Machine(16, 32)),
    ],
)
def test_clang_has_no_complaints(target: str, machine: Machine, tmp_path: Path):
    if (command := clang()) is None or ("macos" in target and command[-1] != "cc"):
        pytest.skip("no clang, or none with this system's headers; see `make neon-test`")
    texts = {str(number): CpuBackend().source(*case(machine, number)) for number in range(len(TEMPLATES))}
    linking = ["-Wl,-undefined,dynamic_lookup"] if "macos" in target else []  # Python itself is there when it is loaded
    for name, text in {**texts, "runtime": runtime.text(), "quick": quick.text()}.items():
        source = tmp_path / f"{name}.c"
        source.write_text(text)
        strict = ["-Wall", "-Wextra", "-Werror", "-Wno-unused-function", "-Wno-unused-parameter"]
        options = [*f"-target {target}".split(), *toolchain.FLAGS, *strict]
        subprocess.run([*command, *options, *linking, "-o", tmp_path / "out", source], check=True)
