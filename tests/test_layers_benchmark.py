"""`python -m benchmarks.layers`: what it measures is what it says, and its figures are what was measured."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from benchmarks import measure
from benchmarks import problems as files
from benchmarks.layers import ours, record, report, timing
from benchmarks.layers.bars import verdicts
from benchmarks.layers.frameworks import arguments
from benchmarks.layers.network import LARGEST_FLOPS, Refused, geometry_of, network
from benchmarks.layers.record import Record
from benchmarks.problems import Problem, experiments, problems, shrink_to
from convjit import passes
from convjit.backends import MLX_DTYPES, registry
from convjit.emit.region import kernel_of
from convjit.geometry import Geometry, Window
from convjit.ir.conv import FusedOp
from convjit.schedule import Schedule
from convjit.tracing import trace
from tests.numerics import reference

PLAIN = Geometry.of_shapes((2, 7, 6, 8), (8, 3, 3, 8), Window((1, 1), (1, 1), (1, 1), (1, 1), (1, 1)))
GEOMETRIES = {
    "plain": PLAIN,
    "asymmetric": Geometry.of_shapes((1, 9, 8, 4), (6, 3, 3, 4), Window((2, 2), (0, 1), (1, 2), (1, 1), (1, 1))),
    "dilated": Geometry.of_shapes((1, 11, 12, 4), (4, 3, 2, 4), Window((1, 1), (2, 1), (2, 1), (2, 3), (1, 1))),
    "groups": Geometry.of_shapes((2, 6, 7, 8), (12, 3, 3, 2), Window((1, 2), (1, 1), (1, 1), (1, 1), (1, 1), 4)),
    "depthwise 1D": Geometry.of_shapes((1, 20, 6), (6, 4, 1), Window((1,), (3,), (0,), (1,), (1,), 6)),
    "3D": Geometry.of_shapes(
        (1, 4, 5, 6, 3), (5, 3, 2, 3, 3), Window((1, 2, 1), (2, 0, 1), (0, 0, 1), *[(1,) * 3] * 2)
    ),
    "transposed": Geometry.of_shapes(
        (2, 5, 6, 4), (3, 3, 3, 4), Window((1, 1), (1, 2), (2, 3), (1, 1), (2, 3), flip=True)
    ),
    "transposed groups": Geometry.of_shapes((1, 9, 8), (12, 4, 2), Window((1,), (3,), (3,), (1,), (2,), 4, flip=True)),
    "transposed 3D": Geometry.of_shapes(
        (1, 3, 4, 5, 4), (2, 2, 3, 3, 4), Window((1,) * 3, (1, 1, 1), (1, 1, 1), (1,) * 3, (2, 2, 1), flip=True)
    ),
}
ENGINES = (
    "onnxruntime",
    "OpenVINO NHWC",
    "OpenVINO NCHW",
    "oneDNN",
    "PyTorch channels_last",
    "PyTorch NCHW",
)


def exact(net, layers=1):
    """The network in float64."""
    y = net.x.astype(np.float64)
    for weight, bias in itertools.islice(zip(net.weights, net.biases, strict=True), layers):
        y = np.maximum(reference.convolution(net.geometry, y, weight) + bias, 0)
    return y


def a_record(name, ratio, **changes):
    """A problem on which convjit takes a millisecond and the best peer `ratio` times as long."""
    seconds = {"convjit": 1e-3, "onnxruntime": 2e-3 * ratio, "OpenVINO": 1e-3 * ratio, "MLX": 0.2}
    made = Record(
        problem=name,
        kind="problems",
        convolution="8x8x8 -> 8x8x8",
        is_shrunk=False,
        mode="alone",
        dtype="f32",
        isa="native",
        flops=10**8,
        peak=2e11,
        others=0.0,
        seconds=seconds,
        refused={"PyTorch NCHW": "no"},
        schedule="cpu/direct.c lanes=16",
        relative_error=1e-6,
        elementwise_error=4.0,
        compile_seconds=0.1,
        text_bytes=14_000,
        packed_bytes=1 << 20,
        packed_ratio=1.0,
        memory_bytes=1 << 20,
    )
    return replace(made, **changes)


@pytest.mark.parametrize("file", [files.FILE, files.EXPERIMENTS], ids=lambda f: f.stem)
def test_problems_are_what_their_files_say(file):
    found = {p.name: p.geometry for p in (*problems(), *experiments())}
    rows = json.loads(file.read_text())
    assert len(rows) == {"conv_problems": 58, "experiments": 25}[file.stem]
    for row in rows:
        assert list(found[row["id"]].out_shape) == row["y"]
        assert found[row["id"]].flops == pytest.approx(1e9 * row["gflop"], rel=1e-3, abs=5e4)


def test_only_large_problems_are_shrunk_and_only_in_batch_and_extents():
    shrunk = 0
    for problem in (*problems(), *experiments()):
        geometry = geometry_of(problem)
        assert geometry.flops <= LARGEST_FLOPS
        assert geometry.weight_shape == problem.geometry.weight_shape and geometry.window == problem.geometry.window
        shrunk += geometry != problem.geometry
        assert (geometry != problem.geometry) == (problem.geometry.flops > LARGEST_FLOPS)
    assert shrunk == 8


def test_what_cannot_be_shrunk_says_so():
    with pytest.raises(ValueError, match="cannot be shrunk to 1000 flops"):
        shrink_to(PLAIN, 1000)


@pytest.mark.parametrize("dtype, allowed", [("f32", 1e-6), ("bf16", 2e-2)])
def test_our_way_runs_the_layers_of_a_network(dtype, allowed):
    backend = registry.get("cpu")
    for depth in (1, 3):
        net = network(PLAIN, dtype, depth)
        way = ours.way(backend, net, ours.chosen(backend, ours.kernel_of(PLAIN, dtype)))
        expected = exact(net, depth)
        assert np.abs(way.output() - expected).max() <= allowed * expected.max()


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
def test_what_is_measured_is_what_the_compiler_writes(dtype):
    numbers = [mx.zeros(shape, MLX_DTYPES[dtype]) for shape in (PLAIN.in_shape, PLAIN.weight_shape, (8,))]
    tape = trace.record(lambda x, w, b: [nn.relu(mx.conv2d(x, w, padding=1) + b)], numbers)
    module, _ = trace.to_module(tape, [trace.Argument(name, "input") for name in ("x", "w", "b")])
    passes.run(module, passes.OPTIMIZE)
    (fused,) = (op for op in module.walk() if isinstance(op, FusedOp))
    assert ours.kernel_of(PLAIN, dtype) == kernel_of(fused)


def test_what_a_kernel_costs_beside_time():
    backend = registry.get("cpu")
    kernel = ours.kernel_of(PLAIN, "f32")
    schedule = ours.chosen(backend, kernel)
    made = ours.make(backend, network(PLAIN, "f32"), schedule)
    assert made.text_bytes == len(backend.source(kernel, schedule))
    assert made.packed_ratio == made.packed_bytes / (4 * 8 * 9 * 8) >= 1
    assert made.seconds > 0 and 0 < made.memory_bytes < 8 << 20


def test_a_schedule_may_be_altered():
    candidates = [Schedule("cpu/direct.c", (("lanes", 8), ("order", "rows"))), Schedule("cpu/depthwise.c")]
    altered = ours.altered(candidates, "cpu/direct.c lanes=4 order=columns")
    assert altered == Schedule("cpu/direct.c", (("lanes", 4), ("order", "columns")))
    with pytest.raises(ValueError, match="only cpu/depthwise"):
        ours.altered(candidates, "cpu/other.c")
    with pytest.raises(ValueError, match="no choice 'rows'; it has lanes, order"):
        ours.altered(candidates, "cpu/direct.c rows=2")


@pytest.mark.parametrize("bound", [True, False])
@pytest.mark.parametrize("engine", ENGINES)
def test_peers_compute_the_same_convolutions(engine, bound):
    for module in ("torch", "onnx", "onnxruntime", "openvino"):
        pytest.importorskip(module)
    from benchmarks.layers.peers import PEERS

    for name, geometry in GEOMETRIES.items():
        net = network(geometry, "f32", 2 if geometry is PLAIN else 1)
        expected = exact(net, len(net.weights))
        actual = PEERS[engine](net, 2, bound).output()
        assert actual.shape == expected.shape, name
        assert np.abs(actual - expected).max() <= 1e-5 * expected.max(), name


def test_peers_refuse_what_they_do_not_know():
    with pytest.raises(Refused, match="no such convolution"):
        arguments(replace(PLAIN, window=replace(PLAIN.window, strides=(2, 2), input_dilation=(2, 2), flip=True)))
    with pytest.raises(Refused, match="padding"):
        arguments(replace(PLAIN, window=replace(PLAIN.window, pad_lo=(3, 3), input_dilation=(2, 2), flip=True)))


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("terms", [2e7, 300.0])
def test_errors_of_all_rows_and_of_samples(name, terms, monkeypatch):
    pytest.importorskip("torch")
    from benchmarks.layers import accuracy

    monkeypatch.setattr(accuracy, "TERMS", terms)
    net = network(GEOMETRIES[name], "f32")
    y = exact(net)
    samples = accuracy._samples(net)
    assert accuracy.errors(net, y) == pytest.approx((0, 0), abs=1e-6)
    largest = max(float(y[image, first:last].max()) for image, first, last in samples)
    for image, row in {(samples[0][0], samples[0][1]), (samples[-1][0], samples[-1][2] - 1)}:
        wrong = y.copy()
        wrong[image, row].flat[0] += 1e-3
        assert accuracy.errors(net, wrong).relative == pytest.approx(1e-3 / largest, rel=1e-6)
        assert accuracy.errors(net, wrong).elementwise > 100
        wrong[image, row].flat[0] = np.nan
        assert accuracy.errors(net, wrong) == (np.inf, np.inf)


def test_engines_take_turns(monkeypatch):
    for name in ("PAUSE", "WARM", "TURN"):
        monkeypatch.setattr(timing, name, 1e-9)
    calls = []
    ways = {name: lambda name=name: calls.append(name) for name in "abc"}
    seconds, others = timing.interleaved(ways, 2)
    order = [name for name, _ in itertools.groupby(calls)]
    assert order == ["a", "b", "c", "b", "c", "a"]
    assert set(seconds) == set("abc") and all(0 < s < 0.1 for s in seconds.values()) and others >= 0


def test_a_host_that_takes_time_away_is_noticed(monkeypatch):
    """A clock that is looked at every microsecond, but for 9 of 10 milliseconds."""
    looks = itertools.count()
    monkeypatch.setattr(timing.time, "perf_counter", lambda: (n := next(looks)) * 1e-6 + n // 1000 * 9e-3)
    assert timing._lost_share() == pytest.approx(0.9, abs=0.05)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(looks) * 1e-6)
    assert timing._lost_share() == 0


def test_the_best_peer_is_neither_mlx_nor_another_schedule_of_ours():
    seconds = {"convjit": 3e-3, "convjit: cpu/direct.c": 1e-4, "MLX": 1e-5, "OpenVINO": 2e-3, "onnxruntime": 1e-3}
    measured = a_record("a", 1.0, seconds=seconds)
    assert (measured.best_peer, measured.ratio) == ("onnxruntime", pytest.approx(1 / 3))
    held = replace(measured, isa="avx2")
    assert (held.best_peer, held.ratio) == ("OpenVINO", pytest.approx(2 / 3))
    assert replace(measured, seconds={"convjit": 1e-3, "MLX": 1.0}).ratio is None


def test_records_are_kept_until_they_are_measured_again(tmp_path):
    file = tmp_path / "results" / "layers.json"
    assert record.read(file, Record) == []
    old = [a_record("a", 1.0), a_record("b", 1.5), a_record("a", 3.0, mode="chain")]
    record.write(file, old)
    assert record.read(file, Record) == old
    kept = record.merged(record.read(file, Record), [a_record("a", 2.0)])
    assert [(r.problem, r.mode, round(r.ratio, 2)) for r in kept] == [
        ("b", "alone", 1.5),
        ("a", "chain", 3.0),
        ("a", "alone", 2.0),
    ]
    assert len(file.read_text().splitlines()) == 5


def test_verdicts():
    records = [
        a_record("a", 4.0, kind="experiments"),
        a_record("b", 0.9, kind="experiments", text_bytes=300_000),
        a_record("c", 2.0, packed_ratio=16.0, packed_bytes=100),
        a_record("c", 1.6, mode="user"),
        a_record("d", 9.0, mode="user", seconds={"convjit": 1e-5, "OpenVINO": 9e-5}),
        a_record("c", 1.0, mode="chain"),
        a_record("c", 1.2, isa="avx2"),
        a_record("c", 9.0, dtype="bf16"),
    ]
    said = [str(v) for v in verdicts(records)]
    assert said[:8] == [
        "MISS 2 experiments, best peer: 1.90x (bar 2)",
        "MISS 2 experiments: worst 0.90x b, 4.00x a; 1 below 1x",
        "ok   1 problems, best peer: 2.00x (bar 1.7)",
        "ok   1 problems: worst 2.00x c; 0 below 0.95x",
        "MISS 1 chains, best peer: 1.00x (bar 1.4)",
        "ok   1 chains: worst 1.00x c; 0 below 0.95x",
        "ok   1 problems over 100 us as a user calls them: 1.60x (bar 1.5)",
        "ok   3 problems, plain MLX: 200x (bar 100)",
    ]
    assert "MISS 1 problems with AVX2, best of OpenVINO and PyTorch: 1.20x (bar 1.3)" in said
    assert "MISS text bytes: at most 3e+02 kB (b), 1 of 3 above 200" in said
    assert "ok   packed ratio: at most 1x the weights (a), 0 of 2 above 4" in said


def test_lines_and_markdown():
    noisy = a_record("c", 2.0, others=0.9, is_shrunk=True)
    said = "\n".join(report.lines(noisy))
    assert "2.00x" in said and "(shrunk)" in said and "other processes kept 0.90 CPUs busy" in said
    assert "convjit 100  onnxruntime 25  OpenVINO 50  MLX 0.5" in said and "50% of peak" in said
    text = report.markdown([noisy, a_record("a", 1.0, mode="chain")], {"cpu": "a CPU", "cores": 2})
    assert "| c (shrunk) | 8x8x8 -> 8x8x8 | 2.00 | 100 | 25 | 50 | 0.5 | - | 50% |" in text
    assert "## One convolution, prepared arrays, f32" in text and "with different weights, f32" in text


def test_patience_measures_again_and_keeps_the_quietest(monkeypatch):
    for module in ("torch", "onnx", "onnxruntime", "openvino"):
        pytest.importorskip(module)
    from benchmarks.layers import run

    noise = [0.9, 0.4, 0.01, 0.0]
    found = []

    def times(single, backend, schedules, settings):
        found.append(noise[len(found)])
        return timing.Times({"convjit": found[-1]}, found[-1]), {}

    monkeypatch.setitem(run._MODES, "user", times)
    problem, backend = Problem("plain", PLAIN, "here"), registry.get("cpu")
    settings = run.Settings("user", "f32", "native", threads=1, rounds=1, with_mlx=False)
    assert run.measured(problem, "problems", backend, settings).others == 0.9
    found.clear()
    assert run.measured(problem, "problems", backend, replace(settings, attempts=2)).others == 0.4
    found.clear()
    assert run.measured(problem, "problems", backend, replace(settings, attempts=4)).others == 0.01


@pytest.mark.parametrize("mode", ["alone", "--user", "--chain"])
def test_a_run_of_all(mode, tmp_path, monkeypatch, capsys):
    for module in ("torch", "onnx", "onnxruntime", "openvino", "rich", "matplotlib"):
        pytest.importorskip(module)
    from benchmarks.layers import __main__ as command

    for name in ("PAUSE", "WARM", "TURN"):
        monkeypatch.setattr(timing, name, 1e-9)
    for name in ("CONVJIT_CACHE_DIR", "CONVJIT_TUNE"):
        monkeypatch.setenv(name, "")  # the run sets them
    small = {"plain": PLAIN, "strided": GEOMETRIES["asymmetric"]}
    monkeypatch.setattr(command, "experiments", lambda: tuple(Problem(n, g, "here") for n, g in small.items()))
    monkeypatch.setattr(command, "problems", lambda: ())
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    assert command.main([*([mode] if mode != "alone" else []), "--rounds", "1", "--save"]) == 0
    records = record.read(tmp_path / "layers.json", Record)
    assert [r.problem for r in records] == (["plain"] if mode == "--chain" else list(small))
    for found in records:
        assert all("noise" in reason for reason in found.refused.values())
        assert {"convjit", *ENGINES} <= {*found.seconds, *found.refused}
        assert mode == "--chain" or not found.refused
        assert ("MLX" in found.seconds) == (mode == "alone") == (found.relative_error > 0)
        assert found.relative_error < 1e-6 and found.elementwise_error < 32
    assert (tmp_path / "layers.svg").exists() == (mode == "alone")
    assert f"{len(records)} " in capsys.readouterr().out
    mx.eval(mx.zeros(1))  # MLX is as before
