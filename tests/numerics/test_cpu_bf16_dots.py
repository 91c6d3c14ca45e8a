"""Direct kernels that multiply pairs of bf16 by one instruction, and in its stead by the sums that it stands for."""

from __future__ import annotations

import platform
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cross import CrossBackend, arm
from sample import layer_geometry, random_kernel, random_numbers
from test_cpu_kernels import check

from convjit.backends.cpu import CpuBackend, toolchain
from convjit.geometry import Geometry, plain_window
from convjit.kernel import Kernel, identity_epilogue
from convjit.schedule import Schedule
from convjit.schedule.cpu import choose, direct
from convjit.schedule.cpu.machine import Machine

COUNT = 10


INSTRUCTION = 'int main(void) { __asm__("vdpbf16ps %zmm0, %zmm0, %zmm0"); return 0; }'
"""A program that ends well on CPUs that have it; hypervisors hide it from some."""


def runs_here(program: str, folder: Path) -> bool:
    (folder / "program.c").write_text(program)
    command = [*toolchain._compiler(), str(folder / "program.c"), "-o", str(folder / "program")]
    return (
        not subprocess.run(command, check=False).returncode
        and not subprocess.run([folder / "program"], check=False).returncode
    )


@pytest.fixture(scope="module", params=[16, 8, 4, "x86", "arm"])
def target(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[CpuBackend, Machine]]:
    """A backend, and a machine with this instruction: this CPU with its own or in its stead the sums that it stands
    for, or an emulated Arm."""
    if request.param == "x86":
        if platform.machine() != "x86_64" or not runs_here(INSTRUCTION, tmp_path_factory.mktemp("bf16")):
            pytest.skip("not an x86 CPU with AVX512-BF16")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CONVJIT_CC", f"{shlex.join(toolchain._compiler())} -march=native -mavx512bf16")
            backend = CpuBackend()
            assert "__AVX512BF16__" in backend._toolchain.features
            yield backend, replace(backend._toolchain.machine, bf16_dot=True)
        return
    if request.param != "arm":
        yield CpuBackend(), Machine(request.param, 16 if request.param == 8 else 32, bf16_dot=True)
        return
    if (emulation := arm("-march=armv8.2-a+bf16", "max")) is None:
        pytest.skip("no aarch64 compiler or no qemu-aarch64; see `make neon-test`")
    host = CpuBackend()._runtime
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONVJIT_CC", emulation.compiler)
        backend = CrossBackend(toolchain.find(), host, emulation.emulator)
        assert backend._toolchain.machine.bf16_dot
        yield backend, backend._toolchain.machine


def kernel_of(number: int) -> Kernel:
    """A bf16 layer with an even number of channels a group."""
    rng = np.random.default_rng([23, number])
    while True:
        geometry = layer_geometry(rng)
        if geometry.in_channels // geometry.window.groups % 2 == 0:
            return random_kernel(rng, "bf16", geometry)


def schedules(kernel: Kernel, machine: Machine) -> list[Schedule]:
    return direct.candidates(kernel.any_batch(), machine)


@pytest.mark.parametrize("number", range(COUNT))
@pytest.mark.usefixtures("guarded_memory")
def test_layer(target: tuple[CpuBackend, Machine], number: int):
    backend, machine = target
    kernel = kernel_of(number)
    possible = schedules(kernel, machine)
    schedule = possible[number % len(possible)]
    assert schedule.number("pairs") == 1
    check(backend, kernel, schedule, random_numbers(np.random.default_rng(number), kernel))


def test_the_instruction_is_used(target: tuple[CpuBackend, Machine]):
    backend, machine = target
    (schedule, *_) = schedules(kernel_of(0), machine)
    assert "dot_bf16(sum" in backend.source(kernel_of(0), schedule)


def test_where_pairs_are_not_multiplied():
    machine = Machine(16, 32, bf16_dot=True)
    geometry = Geometry.of_shapes((1, 8, 8, 6), (32, 3, 3, 6), plain_window(2))
    kernel = Kernel(geometry, "bf16", (), identity_epilogue("bf16"), ("bf16",))
    odd = replace(kernel, geometry=Geometry.of_shapes((1, 8, 8, 5), (32, 3, 3, 5), plain_window(2)))
    single = Kernel(geometry, "f32", (), identity_epilogue("f32"), ("f32",))

    def has_pairs(kernel: Kernel, machine: Machine) -> bool:
        return all("pairs" in dict(schedule.choices) for schedule in schedules(kernel, machine))

    assert has_pairs(kernel, machine)
    assert not has_pairs(odd, machine)
    assert not has_pairs(single, machine)
    assert not has_pairs(replace(kernel, accuracy="precise"), machine)
    assert not has_pairs(kernel, replace(machine, bf16_dot=False))


@pytest.mark.parametrize(("stride", "without", "with_pairs"), [(1, "winograd", "winograd"), (2, "winograd", "direct")])
def test_winograd_multiplies_less_by_more_than_pairs_are_quicker(stride: int, without: str, with_pairs: str):
    window = replace(plain_window(2), strides=(stride, stride), pad_lo=(1, 1), pad_hi=(1, 1))
    geometry = Geometry.of_shapes((1, 56, 56, 128), (128, 3, 3, 128), window)
    kernel = Kernel(geometry, "bf16", (), identity_epilogue("bf16"), ("bf16",))
    for bf16_dot, template in ((False, without), (True, with_pairs)):
        assert choose(kernel, Machine(16, 32, bf16_dot=bf16_dot)).template == f"cpu/{template}.c"
