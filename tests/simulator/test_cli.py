"""`python -m convjit.simulator`: what a person sees, and the exit status."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from convjit.simulator.__main__ import main

ADD = """\
#include <metal_stdlib>
using namespace metal;

kernel void add(device const float* a [[buffer(0)]],
                const device half* b [[buffer(1)]],
                device float* y [[buffer(2)]],
                constant uint& n [[buffer(3)]],
                uint g [[thread_position_in_grid]]) {
  if (g < n) {
    y[g] = a[g] + float(b[g]);
  }
}
"""
BLUR = """\
kernel void blur(device const float* x, device float* y, uint g [[thread_position_in_grid]],
                 uint l [[thread_index_in_threadgroup]]) {
  threadgroup float tile[64];
  tile[l] = x[g];
  simdgroup_barrier(mem_flags::mem_threadgroup);
  y[g] = 0.5f * (tile[l] + tile[max(l, 1u) - 1u]);
}
"""
SIZES = ["--grid", "256", "--threadgroup", "64"]
BUFFERS = ["--input", "a=arange:256:f32", "--input", "b=ones:256:f16", "--output", "y=256:f32"]


@pytest.fixture
def add(tmp_path: Path) -> Path:
    path = tmp_path / "add.metal"
    path.write_text(ADD)
    return path


def run(path: Path, *arguments: str) -> int:
    return main([str(path), *arguments])


def usage_error(capsys: pytest.CaptureFixture[str], path: Path, *arguments: str) -> str:
    with pytest.raises(SystemExit) as raised:
        run(path, *arguments)
    assert raised.value.code == 2
    return capsys.readouterr().err


def test_a_right_kernel(add: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "y.npy"
    assert run(add, *SIZES, *BUFFERS, "--input", "n=256:u32", "--save", f"y={file}") == 0
    np.testing.assert_array_equal(np.load(file), np.arange(256) + 1)
    said = capsys.readouterr().out
    assert "y: 256 float32, 1 to 256, mean 128.5, saved to" in said
    assert "device bytes read                    1,536" in said
    assert said.endswith("add.metal: no findings\n")


def test_findings(add: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(add, *SIZES, *BUFFERS, "--input", "n=250:u32") == 1
    said = capsys.readouterr().out
    assert "add.metal:6: unwritten: 6 of 256 elements of the output `y` are never written, the first is [250]" in said
    assert "\n    device float* y [[buffer(2)]],\n" in said
    assert "6 of 256 not finite" in said and said.endswith("add.metal: 1 finding\n")


def test_a_race(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "blur.metal"
    path.write_text(BLUR)
    assert run(path, *SIZES, "--input", "x=random:256:f32", "--output", "y=256:f32") == 1
    said = capsys.readouterr().out
    assert "blur.metal:6: race: thread (32, 0, 0) reads `tile`[31], which thread (31, 0, 0) wrote in line 4" in said
    assert said.endswith("blur.metal: 1 finding\n")


def test_without_the_checker(add: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(add, *SIZES, *BUFFERS, "--input", "n=250:u32", "--no-check") == 0
    assert "bytes" not in capsys.readouterr().out


def test_initial_values(add: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(add, *SIZES, *BUFFERS, "--input", "n=250:u32", "--init", "0") == 0
    updated = [*BUFFERS[:4], "--input", "y=ones:256:f32", "--input", "n=0:u32"]
    assert run(add, *SIZES, *updated) == 0
    assert "y: 256 float32, 1 to 1, mean 1" in capsys.readouterr().out


def test_a_text_that_is_only_read(add: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(add) == 0
    assert "not run: that takes --grid, --threadgroup" in capsys.readouterr().out
    add.write_text(ADD.replace("a[g] +", "double(a[g]) +"))
    assert run(add) == 1
    assert "add.metal:10: " in capsys.readouterr().out


def test_a_text_that_is_no_kernel(add: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add.write_text(ADD.replace("a[g] +", "missing +"))
    assert run(add, *SIZES, *BUFFERS, "--input", "n=256:u32") == 1
    assert "y[g] = missing + float(b[g]);" in capsys.readouterr().out


def test_inputs_from_files(add: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "a.npy", np.full(256, 2, np.float32))
    inputs = ["--input", f"a={tmp_path / 'a.npy'}", "--input", "b=random:256:f16", "--input", "n=256:u32"]
    assert run(add, *SIZES, *inputs, "--output", "y=256:f32", "--seed", "3") == 0
    assert "mean 1.9" in capsys.readouterr().out


def test_templates_and_several_kernels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "two.metal"
    path.write_text(
        "template <typename T, int N> [[kernel]] void scale(const device T* x, device T* y,\n"
        "    uint g [[thread_position_in_grid]]) { y[g] = T(N) * x[g]; }\n"
        'template [[host_name("scale_f32_3")]] [[kernel]] decltype(scale<float, 3>) scale<float, 3>;\n'
        'template [[host_name("scale_f16_5")]] [[kernel]] decltype(scale<half, 5>) scale<half, 5>;\n'
    )
    sizes = ["--grid", "8x2", "--threadgroup", "8x1"]
    assert "choose by --kernel scale_f32_3 | scale_f16_5" in usage_error(capsys, path, *sizes)
    arrays = ["--input", "x=ones:8:f16", "--output", "y=8:f16"]
    assert run(path, "--grid", "8", "--threadgroup", "8", "--kernel", "scale_f16_5", *arrays) == 0
    assert "y: 8 float16, 5 to 5, mean 5" in capsys.readouterr().out
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:3]))
    assert run(path, "--grid", "8", "--threadgroup", "8", "--input", "x=ones:8:f32", "--output", "y=8:f32") == 0
    assert "y: 8 float32, 3 to 3, mean 3" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (SIZES, "the kernel reads 'a' (line 4): give --input a=random:SHAPE:f32"),
        ([*SIZES, *BUFFERS], "the kernel reads 'n' (line 7): give --input n="),
        ([*SIZES, *BUFFERS, "--input", "m=1:u32"], "add has no buffer 'm'; it has a, b, y, n"),
        ([*SIZES, "--output", "a=256:f32"], "'a' is const"),
        ([*SIZES, "--input", "a=rnd:256:f32"], "'rnd:256:f32' is neither a file nor random"),
        ([*SIZES, "--input", "a=random:256:f8"], "'f8' is not a type; types: f32, f16"),
        ([*SIZES, "--input", "a=random:f32"], "is not SHAPE:TYPE, like 1x8x8x4:f32"),
        ([*SIZES, "--input", "a=none.npy"], "cannot load none.npy"),
        (["--grid", "8by8"], "'8by8' is not like 64, 64x56 or 64x56x1"),
        (["--input", "256"], "'256' is not like NAME=..."),
        (["--grid", "256", *BUFFERS, "--input", "n=1:u32"], "give --threadgroup, too"),
        ([*SIZES, "--kernel", "sub"], "there is no kernel 'sub' in the text; its kernels: add"),
    ],
)
def test_commands_that_cannot_be_understood(
    add: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert message in usage_error(capsys, add, *arguments)


def test_as_a_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "convjit.simulator"]
    done = subprocess.run([*command, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "exit status: 0 if nothing was found" in done.stdout
    done = subprocess.run([*command, str(tmp_path / "none.metal")], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "cannot read" in done.stderr
