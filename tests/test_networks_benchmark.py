"""`python -m benchmarks.networks`: every engine runs the same networks, and its figures are what was measured."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

import convjit
from benchmarks import measure
from benchmarks.layers import record as records
from benchmarks.layers import timing
from benchmarks.networks import report
from benchmarks.networks.architectures import ARCHITECTURES, Architecture
from benchmarks.networks.in_mlx import Model, model_and_input
from benchmarks.networks.record import Record
from benchmarks.networks.sketch import network
from benchmarks.networks.steps import Step, counts, profiled

GFLOP = {  # torchvision's documentation counts a multiply-add as one
    "resnet50": 2 * 4.09,
    "mobilenet_v2": 2 * 0.30,
    "efficientnet_b0": 2 * 0.39,
    "convnext_tiny": 2 * 4.46,
}
MILLIONS = {"resnet50": 25.6, "mobilenet_v2": 3.5, "efficientnet_b0": 5.3, "convnext_tiny": 28.6}
QUICK_PEERS = ("onnxruntime", "OpenVINO", "PyTorch")  # to compile PyTorch's takes ten seconds


def every_op(ops, x):
    """A tiny network with all ops there are."""
    x = ops.relu(ops.batch_norm("norm", ops.conv("stem", x, 8, 3, stride=2, padding=1, bias=False)))
    y = ops.conv("depthwise", ops.max_pool(x, 2, 2, 0), 8, 3, padding=1, groups=8)
    x = ops.add(ops.max_pool(x, 3, 2, 1), ops.relu6(y))
    gate = ops.sigmoid(ops.conv("gate", ops.mean_pixel(x), 8, 1))
    x = ops.multiply(ops.silu(ops.group_norm("groups", x, 4)), gate)
    y = ops.gelu(ops.linear("expand", ops.layer_norm("layer", x), 16))
    x = ops.upsample(ops.add(x, ops.scale("scale", ops.linear("project", y, 8))))
    return ops.linear("head", ops.mean(ops.conv("groups of two", x, 8, 3, groups=4)), 5)


TINY = Architecture("tiny", every_op, 16)


@pytest.mark.parametrize("name", GFLOP)
def test_networks_are_what_they_are_called(name):
    net = network(ARCHITECTURES[name], batch=1)
    assert net.flops == pytest.approx(1e9 * GFLOP[name], rel=0.02)
    weights = sum(
        a.size for layer in net.layers.values() for a in (layer.weight, getattr(layer, "bias", None)) if a is not None
    )
    assert weights == pytest.approx(1e6 * MILLIONS[name], rel=0.01)


def test_weights_are_the_same_every_time():
    first, second = network(TINY, 2), network(TINY, 2)
    assert first.x.shape == (2, 16, 16, 3) and np.array_equal(first.x, second.x)
    for name, layer in first.layers.items():
        assert np.array_equal(layer.weight, second.layers[name].weight)


@pytest.mark.parametrize("name", ["tiny", *ARCHITECTURES])
def test_compiled_networks_are_plain_mlx(name):
    """And the input decides on the result: else engines would be compared by their biases alone."""
    architecture = {"tiny": TINY, **ARCHITECTURES}[name]
    net = network(architecture, batch=1, size=2 if name == "vae_decoder" else 64)
    model = Model(net)
    fast = convjit.compile(model, backend="cpu", fallback="error")
    x = mx.array(net.x)
    y = model(x)
    assert measure.relative_error(fast(x), y) < 1e-5
    assert 0.05 < mx.std(y).item() < 100
    assert measure.relative_error(fast(0.5 * x[:, ::-1]), y) > 0.02


@pytest.mark.parametrize(("engine", "dtype"), [*((e, "f32") for e in QUICK_PEERS), ("PyTorch", "bf16")])
def test_peers_compute_the_same_network(engine, dtype):
    for module in ("torch", "onnx", "onnxruntime", "openvino"):
        pytest.importorskip(module)
    from benchmarks.networks.peers import PEERS

    net = network(TINY, batch=2, dtype=dtype)
    model, x = model_and_input(net)
    y = model(x)
    assert y.dtype == {"f32": mx.float32, "bf16": mx.bfloat16}[dtype]
    expected = np.array(y.astype(mx.float32))
    actual = PEERS[engine](net, 2).output()
    assert actual.shape == expected.shape == (2, 5)
    assert np.abs(actual - expected).max() <= {"f32": 1e-5, "bf16": 3e-2}[dtype] * np.abs(expected).max()


def test_steps_are_all_there():
    net = network(TINY, 1)
    x = mx.array(net.x)
    fast = convjit.compile(Model(net), backend="cpu", fallback="error")
    fast(x)
    found = counts(fast)
    steps = profiled(Model(net), x, rounds=2)
    kernels = [s for s in steps if s.layer]
    assert (len(kernels), len(steps) - len(kernels)) == (found.kernels, found.plain)
    convolutions = {s.layer: s.flops for s in kernels if s.flops}
    assert convolutions["layers.depthwise"] == 2 * 4 * 4 * 8 * 9
    assert {"layers.stem", "layers.gate", "layers.groups of two"} <= set(convolutions)
    assert all(s.seconds > 0 for s in steps)


def test_a_profile_is_sorted_by_time():
    steps = [
        Step("AddMM", "1x8 8x8 -> 1x8", "", 0, 3e-3),
        Step("conv.fused", "8x8x8 -> 8x8x8, k 1x1", "a", 4 * 10**6, 1e-3),
        Step("conv.fused", "8x8x8 -> 8x8x8, k 1x1", "b", 4 * 10**6, 3e-3),
        Step("conv.elementwise", "8x8x8", "elementwise.1", 0, 1e-3),
    ]
    said = list(report.profile_lines(steps))
    assert said[0].split() == ["each", "of", "4", "steps", "by", "itself,", "8", "ms:"]
    assert said[3].split() == ["4.000", "50%", "2", "conv.fused"]
    assert said[4].split()[-1] == "AddMM"
    assert said[9].split()[:5] == ["4.000", "50.0%", "2", "2", "conv.fused"]


def test_a_record_in_words():
    seconds = {"convjit": 1e-3, "onnxruntime": 3e-3, "OpenVINO": 2e-3, "MLX": 0.5}
    found = Record(
        "a", "A", (1, 8, 8, 3), "f32", 10**8, 7, 2, 2e11, 0.9, seconds, {"OpenVINO": 2e-6}, {"PyTorch": "no"}
    )
    assert found.ratio == pytest.approx(2)
    said = "\n".join(report.lines(found))
    assert "A, 1x8x8x3, f32, 0.1 GFLOP: 2.00x the best peer, 7 kernels and 2 plain MLX ops" in said
    assert "other processes kept 0.90 CPUs busy" in said and "PyTorch: no" in said
    rows = [line.split() for line in said.splitlines()]
    assert ["convjit", "1", "100", "50%"] in rows and ["OpenVINO", "2", "50", "25%", "2.0e-06"] in rows


def test_a_run(tmp_path, monkeypatch, capsys):
    for module in ("rich", "matplotlib"):
        pytest.importorskip(module)
    from benchmarks.networks import __main__ as command

    for name in ("PAUSE", "WARM", "TURN"):
        monkeypatch.setattr(timing, name, 1e-9)
    monkeypatch.setenv("CONVJIT_TUNE", "")  # the run sets it
    monkeypatch.setattr(command, "ARCHITECTURES", {"tiny": TINY, "other": TINY})
    monkeypatch.setattr(command, "_peers", lambda: {"refuses": lambda net, threads: 1 / 0})
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    assert command.main(["--rounds", "1", "--save"]) == 0
    assert command.main(["tiny", "--rounds", "1", "--save", "--batch", "2", "--no-mlx"]) == 0
    assert command.main(["tiny", "--rounds", "1", "--save", "--dtype", "bf16", "--no-mlx"]) == 0
    *found, half = records.read(tmp_path / "networks.json", Record)
    assert half.dtype == "bf16" and half.ratio is None
    assert half.seconds.keys() == {"convjit", "convjit f32"} and 0 < half.differences["convjit f32"] < 0.05
    assert [(r.network, r.shape[0]) for r in found] == [("tiny", 1), ("other", 1), ("tiny", 2)]
    for record in found:
        assert record.refused == {"refuses": "division by zero"} and record.ratio is None
        assert ("MLX" in record.seconds) == ("MLX" in record.differences) == (record.shape[0] == 1)
    assert (tmp_path / "networks.svg").exists()
    assert command.main(["tiny", "--profile", "--rounds", "1"]) == 0
    assert "steps by itself" in capsys.readouterr().out
