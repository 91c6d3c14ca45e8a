"""`make metal-proof` on the simulator: what it runs, what it writes, and that nothing stops it."""

from __future__ import annotations

import contextlib
import json

import mlx.core as mx
import numpy as np
import pytest

from benchmarks import metal_proof
from benchmarks.elementwise import STEPS
from benchmarks.kernels import EPILOGUES, WEIGHT_GRADIENT, kernel_of, mlx_of
from benchmarks.metal_report import Record, markdown
from convjit.backends import registry
from convjit.geometry import Geometry, Window
from convjit.proof import check, elementwise, oracle
from convjit.schedule.metal.chip import CHIPS
from convjit.storage.environment import environment
from tests.metal_faults import ProvingBackend

GEOMETRY = Geometry.of_shapes((2, 7, 6, 3), (5, 3, 3, 3), Window((1, 1), (1, 1), (1, 1), (1, 1), (1, 1)))


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("CONVJIT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(metal_proof, "RESULTS", tmp_path / "results")


@pytest.fixture
def written(tmp_path):
    def read():
        results = tmp_path / "results"
        return json.loads((results / "metal_proof.json").read_text()), (results / "metal_proof.md").read_text()

    return read


def test_a_quick_sample_is_right(written, capsys):
    assert metal_proof.main(["--quick", "--dtype", "f16"]) == 0
    record, report = written()
    assert len(record["records"]) == 11 and record["running"] == ""
    assert all(r["failure"] == "" and r["seconds"] is None and r["is_shrunk"] for r in record["records"])
    assert "11 kernels: 11 right, 0 inexact, 0 WRONG." in report and "## Failures" not in report
    assert "11 kernels, 0 wrong" in capsys.readouterr().out


def test_all_schedules_of_a_problem(written):
    assert metal_proof.main(["--only", "dw_T1d", "--only", "rn50_1x1_s2", "--dtype", "f32"]) == 0
    record, report = written()
    chosen = [(r["problem"], r["epilogue"]) for r in record["records"] if r["is_chosen"]]
    of_both = [(problem, epilogue) for problem in ("dw_T1d", "rn50_1x1_s2") for epilogue in EPILOGUES]
    assert chosen == [*of_both, ("rn50_1x1_s2", WEIGHT_GRADIENT)]  # the first is transposed
    assert any(not r["is_chosen"] for r in record["records"]) and "## Other schedules" in report


def test_a_wrong_kernel_stops_nothing(written, monkeypatch):
    backend = ProvingBackend("does not compile")
    monkeypatch.setattr(registry, "get", lambda name: backend)
    assert metal_proof.main(["--only", "ae_T3_op1", "--only", "mbv2_dw_7", "--dtype", "f16", "--quick"]) == 1
    record, report = written()
    assert [r["problem"] for r in record["records"]] == ["ae_T3_op1", "mbv2_dw_7"]
    for r in record["records"]:
        assert r["failure"].startswith("its kernel does not run: CompileError") and r["bundle"] in report
    assert report.index("## Failures") < report.index("## Chosen schedules")


@pytest.fixture
def run_until(monkeypatch):
    """Runs three cases, the second of which ends the run with an error; returns the arguments of that run."""

    def run(error):
        run_case = metal_proof.run_case

        def run_until(case, backend, *, alternatives):
            if case.problem.name == "mbv2_dw_7":
                raise error
            return run_case(case, backend, alternatives=alternatives)

        arguments = ["--quick", "--only", "ae_T3_op1", "--only", "mbv2_dw_7", "--only", "dw_mult2", "--dtype", "f16"]
        with monkeypatch.context() as patch, contextlib.suppress(SystemExit):
            patch.setattr(metal_proof, "run_case", run_until)
            metal_proof.main(arguments)
        return arguments

    return run


def test_a_run_goes_on_behind_what_took_it_down(written, run_until):
    assert metal_proof.main([*run_until(SystemExit()), "--resume"]) == 1
    records = written()[0]["records"]
    assert [r["problem"] for r in records] == ["ae_T3_op1", "mbv2_dw_7", "dw_mult2"]
    assert [r["failure"] for r in records] == ["", "the process ended while it ran", ""]


def test_an_interrupted_run_goes_on_where_it_was(written, run_until, capsys):
    arguments = run_until(KeyboardInterrupt())
    assert "--resume goes on" in capsys.readouterr().err
    assert metal_proof.main([*arguments, "--resume"]) == 0
    records = written()[0]["records"]
    assert [(r["problem"], r["failure"]) for r in records] == [("ae_T3_op1", ""), ("mbv2_dw_7", ""), ("dw_mult2", "")]


def test_an_unknown_problem(capsys):
    with pytest.raises(SystemExit):
        metal_proof.main(["--only", "nothing"])
    assert "no problem nothing; there are rn50_stem," in capsys.readouterr().err


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("epilogue", [*EPILOGUES, WEIGHT_GRADIENT])
def test_the_kernels_do_what_the_mlx_ops_do(dtype, epilogue):
    kernel = kernel_of(GEOMETRY, dtype, epilogue)
    arrays = check.inputs(kernel, np.random.default_rng(0))
    (y,) = mlx_of(kernel)(arrays)
    everywhere = tuple(axis.ravel() for axis in np.indices(kernel.result_shape))
    (bounds,) = oracle.bounds(kernel, [oracle.stored(a) for a in arrays], everywhere)
    assert (
        bounds.deviation(oracle.stored(y).ravel().astype(np.float64)) <= {"f32": 1e-6, "f16": 2e-3, "bf16": 2e-2}[dtype]
    )


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_steps_do_what_the_mlx_ops_do(dtype, step):
    kernel = step.kernel(dtype, is_small=True)
    arrays = check.inputs(kernel, np.random.default_rng(0))
    read = [oracle.stored(a) for a in arrays]
    results = [oracle.stored(y) for y in step.mlx(*(a.astype(mx.float32) for a in arrays))]
    schedule = registry.get("simulator").schedule(kernel)
    checks = elementwise.checks(kernel, schedule, read, results, np.random.default_rng(1))
    for y, (outputs, bounds) in zip(results, checks, strict=True):
        assert not bounds.wrong(oracle.pick(y, outputs)).any()


def test_what_is_timed():
    backend, kernel = registry.get("simulator"), kernel_of(GEOMETRY, "f32", EPILOGUES[1])
    schedule = backend.schedule(kernel)
    seconds = metal_proof._seconds(backend, kernel, mlx_of(kernel), [schedule])
    assert seconds.keys() == {schedule.in_words(), "mlx", "mx.compile"} and min(seconds.values()) > 0
    step = STEPS[1].kernel("f32", is_small=True)
    seconds = metal_proof._seconds(backend, step, lambda arrays: STEPS[1].mlx(*arrays), [backend.schedule(step)])
    assert len(seconds) == 3 and metal_proof._bytes(step) == 4 * (4 * 3 * 7 * 9 * 20 + 4 * 20)


def test_times_in_the_report():
    words = ("stem", "8x8x3 -> 8x8x4", False, "f16", "bare")
    numbers = (1e-3, 2e-3, 1.5e-3, 41_000_000, 5_300_000_000)
    records = [
        Record(*words, "metal/gemm.metal a=1", True, "", "", 1e-4, *numbers),
        Record(*words, "metal/direct.metal", False, "", "", 5e-3, 4e-3, 2e-3, 1.5e-3, *numbers[3:]),
    ]
    report = markdown(records, {**environment(), "metal": True}, CHIPS["M1 Pro"])
    assert "- f16, bare: 2.00x as fast as MLX, 1.50x as fast as MLX under mx.compile (geometric means)" in report
    assert "| right | 1.0e-04 | 1 | 2 | 1.5 | 2.00x | 1.50x | 20% | 100% |" in report
    assert "| stem | metal/direct.metal | inexact | 5.0e-03 | 4 | 0.25x |" in report
