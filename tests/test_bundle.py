"""Reproduction bundles: what they hold, and that `python -m convjit repro` shows the fault again."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest
from sample import random_kernel

from convjit import proof
from convjit.__main__ import main
from convjit.backends import registry
from convjit.geometry import Geometry, Window
from convjit.kernel import Epilogue, Instruction, Kernel, identity_epilogue
from convjit.proof import Verdict, bundle
from convjit.schedule import Schedule
from tests.metal_faults import BEST, ProvingBackend

WINDOW = Window((1, 1), (1, 1), (1, 1), (1, 1), (1, 1))
KERNEL = Kernel(Geometry.of_shapes((2, 7, 6, 3), (5, 3, 3, 3), WINDOW), "f32", (), identity_epilogue("f32"), ("f32",))
FAULTY = Schedule("metal/direct.metal", BEST)
SHOWS = {
    "wrong index": "run on simulator: WRONG (",
    "wrong last pixel": "run on simulator: WRONG (",
    "not written": ": nan, should be between",
    "does not compile": "type check: ",
    "too many threads": "2048",
    "hangs": "still running after 2 seconds",
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CONVJIT_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("CONVJIT_SIMULATOR_TIMEOUT", "2")


def failed(fault):
    """The bundle that a fault leaves."""
    backend = ProvingBackend(fault)
    verdict = proof.prove(KERNEL, FAULTY, proof.runner(backend, KERNEL, FAULTY))
    assert not verdict.is_right
    return bundle.write(backend, "down.conv", KERNEL, FAULTY, verdict)


@pytest.mark.parametrize("fault", SHOWS)
def test_a_fault_is_reproduced(fault, capsys):
    folder = failed(fault)
    assert main(["repro", str(folder)]) == 1
    said = capsys.readouterr().out
    assert said.startswith("layer 'down.conv': 2x7x6x3 -> 7x6x5, k 3x3, p 1, f32, metal/direct.metal channels=1")
    assert SHOWS[fault] in said
    if fault != "too many threads":  # which is a fault of the launch, not of the text
        assert "writes another text: right (all of " in said


def test_the_checker_sees_what_the_numbers_hide(capsys):
    """A kernel that reads out of bounds and then does not use it."""
    backend = ProvingBackend("none")
    outside = "const float outside = input[1000000 + c];\n  float value = 0.0f * (outside - outside) +"
    verdict = Verdict(error="RuntimeError: the device was lost")
    backend.edit = lambda one: replace(
        one, text=replace(one.text, body=one.text.body.replace("const float value =", outside))
    )
    folder = bundle.write(backend, "", KERNEL, FAULTY, verdict)
    main(["repro", str(folder)])
    said = capsys.readouterr().out
    assert "checker: " in said and "which has 252 elements" in said


def test_what_a_bundle_holds():
    folder = failed("wrong index")
    record = json.loads((folder / "bundle.json").read_text())
    assert record["layer"] == "down.conv" and record["seed"] == 0
    assert record["shapes"] == {"input": [2, 7, 6, 3], "weight": [5, 3, 3, 3], "output": [2, 7, 6, 5]}
    assert record["wrong"] > 0 and record["examples"][0].keys() == {"result", "index", "actual", "low", "high"}
    assert record["environment"].keys() >= {"device", "build", "python", "mlx", "convjit"}
    (dispatch,) = record["dispatches"]
    text = (folder / f"0-{dispatch['name']}.metal").read_text()
    assert text.startswith("[[kernel]] void") and "c == 1 ? 0 : c" in text
    assert dispatch["grid"] and dispatch["threadgroup"] == [4, 32, 1]


def test_shapes_are_on_one_line():
    text = (failed("wrong index") / "bundle.json").read_text()
    assert '"input": [2, 7, 6, 3],' in text


def test_a_right_kernel_replays_as_right(capsys):
    folder = bundle.write(ProvingBackend("none"), "", KERNEL, FAULTY, Verdict(error="a driver of long ago"))
    assert main(["repro", str(folder / "bundle.json")]) == 0
    said = capsys.readouterr().out
    assert "run on simulator: right (all of " in said and "writes the same text" in said
    assert "lint:" not in said and "type check:" not in said and "checker:" not in said


def test_a_text_that_cannot_be_written(capsys):
    """Then it is this version's that is run."""
    folder = failed("cannot be written")
    assert json.loads((folder / "bundle.json").read_text())["dispatches"] == []
    assert main(["repro", str(folder)]) == 0
    assert "run on simulator, as this convjit writes it: right" in capsys.readouterr().out


def test_of_the_cpu_backend(capsys):
    backend = registry.get("cpu")
    schedule = backend.schedule(KERNEL)
    folder = bundle.write(backend, "conv", KERNEL, schedule, Verdict(error="lost"))
    assert main(["repro", str(folder)]) == 0
    assert "run on cpu" in capsys.readouterr().out


@pytest.mark.parametrize("seed", range(12))
def test_kernels_survive_json(seed):
    kernel = random_kernel(np.random.default_rng(seed), ("f32", "f16", "bf16")[seed % 3])
    kernel = replace(
        kernel,
        epilogue=Epilogue(
            ("f32",),
            (
                Instruction("arith.constant", (), "f32", float("nan")),
                Instruction("arith.constant", (), "f32", -0.0),
                Instruction("arith.constant", (), "i1", True),
                Instruction("arith.cmpf", (0, 1), "i1", "ogt"),
            ),
            (4,),
        ),
    )
    assert repr(bundle.kernel_of(json.loads(json.dumps(asdict(kernel))))) == repr(kernel)


def test_what_cannot_be_read(tmp_path, capsys):
    assert main(["repro", str(tmp_path / "nowhere")]) == 2
    assert "cannot read" in capsys.readouterr().err
    folder = failed("wrong index")
    file = folder / "bundle.json"
    for damage, complaint in {
        '"format": 1': ('"format": 99', "of format 99"),
        '"seed": 0': ('"sood": 0', "KeyError: 'seed'"),
        "{": ("[", "JSONDecodeError"),
    }.items():
        text = file.read_text()
        file.write_text(text.replace(damage, complaint[0], 1))
        assert main(["repro", str(folder)]) == 2
        assert complaint[1] in capsys.readouterr().err
        file.write_text(text)
    (folder / "0-body.metal").unlink()
    assert main(["repro", str(folder)]) == 2
    assert "0-body.metal" in capsys.readouterr().err


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CONVJIT_CACHE_DIR", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = bundle.write(ProvingBackend("none"), "", KERNEL, FAULTY, Verdict(error="lost"))
    assert bundle.read(folder).kernel == KERNEL


def test_from_the_shell():
    def run(*arguments):
        done = subprocess.run([sys.executable, "-m", "convjit", *arguments], capture_output=True, text=True)
        return done.returncode, done.stdout

    status, text = run()
    assert status == 0 and "usage: python -m convjit" in text and "repro" in text
    status, text = run("repro", "--help")
    assert status == 0 and "exit status: 0" in text
