"""Pooling: in compiled functions it gives what MLX gives, on kernels of the stretch around it; gradients stay right."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from graphs import traced
from mlx.utils import tree_flatten
from test_layouts import TO_NCHW, TO_NHWC, PortedNet

import convjit
from convjit import passes
from convjit.__main__ import main
from convjit.backends import registry
from convjit.ir import reference
from convjit.kernel import AnyKernel, Pool, PoolGradient
from convjit.proof import trust
from convjit.tracing.trace import Argument

Function = Callable[[mx.array, mx.array], list[mx.array]]

SHAPES = {1: (2, 13, 5), 2: (2, 9, 8, 20), 3: (2, 5, 6, 7, 3)}

LAYERS: dict[str, tuple[int, Callable[[mx.array], mx.array]]] = {
    "overlapping 1D": (1, nn.MaxPool1d(3, 2)),
    "overlapping 2D": (2, nn.MaxPool2d(3, 2, 1)),
    "overlapping 3D": (3, nn.MaxPool3d(2, 1)),
    "side by side 1D": (1, nn.MaxPool1d(13)),
    "side by side 2D": (2, nn.MaxPool2d((3, 2))),
    "side by side 3D": (3, nn.MaxPool3d((5, 2, 7))),
    "side by side, padded": (2, nn.MaxPool2d((1, 2), padding=(0, 2))),
    "strides beyond the window": (2, nn.MaxPool2d(2, (3, 4), 1)),
    "windows of padding": (2, nn.MaxPool2d(2, 1, 3)),
    "any window": (3, nn.MaxPool3d((1, 2, 3), (2, 1, 2), (0, 1, 1))),
    "global": (2, lambda x: x.max((1, 2))),
    "global with all axes": (3, lambda x: x.max((1, 2, 3), keepdims=True)),
    "averages 1D": (1, nn.AvgPool1d(3, 2, 1)),
    "averages 2D": (2, nn.AvgPool2d(3, 1, 1)),
    "averages side by side": (2, nn.AvgPool2d((3, 2))),
    "averages 3D": (3, nn.AvgPool3d((1, 2, 3), (2, 1, 2), (0, 1, 1))),
    "global averages": (2, lambda x: x.mean((1, 2))),
    "global averages 1D": (1, lambda x: x.mean(1, keepdims=True)),
}

TOLERANCE = {mx.float32: 1e-6, mx.float16: 4e-3, mx.bfloat16: 3e-2}
"""Of averages."""


def example(name: str, dtype: mx.Dtype = mx.float32) -> tuple[Function, list[mx.array]]:
    """A layer beside a convolution: it reads an argument, and so the same numbers on both sides."""
    rank, pool = LAYERS[name]
    shapes = SHAPES[rank], (2, *(1,) * rank, SHAPES[rank][-1])
    arrays = [mx.random.normal(shape, key=mx.random.key(3)).astype(dtype) for shape in shapes]
    return lambda x, w: [pool(x), mx.conv_general(x, w)], arrays


def assert_same(name: str, got: mx.array, want: mx.array) -> None:
    assert (got.shape, got.dtype) == (want.shape, want.dtype)
    tolerance = TOLERANCE[want.dtype] if "averages" in name else 0
    numbers = (np.array(a.astype(mx.float32)) for a in (got, want))
    np.testing.assert_allclose(*numbers, rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_gives_what_mlx_gives(name: str, dtype: mx.Dtype):
    function, arrays = example(name, dtype)
    fast = convjit.compile(function, fallback="error")
    assert_same(name, fast(*arrays)[0], function(*arrays)[0])
    ir = convjit.inspect.ir(fast)
    assert ir.count("conv.pool") == 1
    assert not any(f'"{primitive}"' in ir for primitive in ("Pad", "AsStrided", "Transpose", "Reduce"))


@pytest.mark.parametrize("name", LAYERS)
def test_the_pass_keeps_the_meaning(name: str):
    function, arrays = example(name)
    module = traced(function, arrays, [Argument("x", "input"), Argument("w", "parameter")])
    passes.run(module, "raise-conv,raise-pool")
    module.verify()
    assert "conv.pool" in str(module)
    assert_same(name, reference.run(module, arrays)[0], function(*arrays)[0])


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_nan_and_infinities(dtype: mx.Dtype):
    rng = np.random.default_rng(2)
    x = rng.choice([np.nan, np.inf, -np.inf, 1, 2, 3], (2, 9, 9, 20), p=[0.05, 0.05, 0.6, 0.1, 0.1, 0.1])
    function, (_, w) = example("overlapping 2D", dtype)
    arrays = mx.array(x.astype(np.float32)).astype(dtype), w
    got, want = (f(*arrays)[0].astype(mx.float32) for f in (convjit.compile(function, fallback="error"), function))
    assert np.array_equal(got, want, equal_nan=True)
    assert mx.isnan(want).any() and (want == -mx.inf).any()


GRADIENTS = [name for name in LAYERS if "averages" not in name and "global" not in name]


def gradient_example(name: str, dtype: mx.Dtype) -> tuple[Function, list[mx.array]]:
    """The gradient of a pool of few different numbers, in windows of which several are the maximum."""
    (_, pool), (_, (x, w)) = LAYERS[name], example(name, dtype)
    x = mx.round(2 * x)
    dy = mx.random.normal(pool(x).shape, key=mx.random.key(4)).astype(dtype)
    return lambda x, w, dy: [mx.vjp(lambda x: [pool(x)], [x], [dy])[1][0], mx.conv_general(x, w)], [x, w, dy]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", GRADIENTS)
def test_a_gradient_is_what_mlx_gives(name: str, dtype: mx.Dtype):
    """To the last bit: shares are rounded where MLX rounds them, and added up in its order."""
    function, arrays = gradient_example(name, dtype)
    fast = convjit.compile(function, fallback="error")
    assert mx.array_equal(fast(*arrays)[0], function(*arrays)[0])
    ir = convjit.inspect.ir(fast)
    assert ir.count("conv.pool_gradient") == ir.count("conv.pool ") == ir.count("conv.stretch(") == 1
    assert not any(f'"{primitive}"' in ir for primitive in ("AsStrided", "Equal", "Reduce", "Scatter", "Slice"))


@pytest.mark.parametrize("name", GRADIENTS)
def test_the_pass_for_gradients_keeps_the_meaning(name: str):
    function, arrays = gradient_example(name, mx.float32)
    module = traced(function, arrays, [Argument(n, "input") for n in ("x", "w", "dy")])
    passes.run(module, "raise-conv,raise-pool-gradient")
    module.verify()
    assert "conv.pool_gradient" in str(module)
    assert mx.array_equal(reference.run(module, arrays)[0], function(*arrays)[0])


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_gradients_of_nan_and_infinities(dtype: mx.Dtype):
    rng = np.random.default_rng(2)
    function, (x, w, dy) = gradient_example("overlapping 2D", dtype)
    x = rng.choice([np.nan, np.inf, -np.inf, 1, 2, 3], x.shape, p=[0.02, 0.05, 0.63, 0.1, 0.1, 0.1])
    x[0, :4] = -np.inf
    arrays = [mx.array(x.astype(np.float32)).astype(dtype), w, dy]
    got, want = (f(*arrays)[0] for f in (convjit.compile(function, fallback="error"), function))
    assert mx.array_equal(got, want, equal_nan=True) and mx.isnan(want).any() and mx.isfinite(want).any()


class Net(nn.Module):
    """As a ResNet begins and ends, with other pools between."""

    def __init__(self):
        super().__init__()
        self.stem, self.pool = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.MaxPool2d(3, 2, 1)
        self.conv1, self.average = nn.Conv2d(8, 8, 3, padding=1), nn.AvgPool2d(2)
        self.conv2, self.half = nn.Conv2d(8, 6, 3, padding=1), nn.MaxPool2d(2)
        self.last = nn.Conv2d(6, 4, 1)

    def __call__(self, x: mx.array) -> mx.array:
        x = self.pool(nn.relu(self.stem(x)))
        x = self.average(nn.relu(self.conv1(x)))
        x = self.half(self.conv2(x))
        return self.last(x).mean((1, 2))


def net_and_input(batch: int) -> tuple[Net, mx.array]:
    mx.random.seed(5)
    return Net(), mx.random.normal((batch, 33, 34, 3))


@pytest.mark.parametrize("batch", [1, 3])
def test_a_network_is_one_stretch(batch: int):
    net, x = net_and_input(batch)
    fast = convjit.compile(net, fallback="error")
    for _ in range(4):  # from the third call on by a call in C
        np.testing.assert_allclose(fast(x), net(x), rtol=1e-4, atol=1e-5)
    ir = convjit.inspect.ir(fast)
    assert ir.count("conv.stretch(") == 1 and ir.count("conv.pool") == 3 + (batch > 1)
    assert "mlx.primitive" not in ir.partition("@forward")[2]
    rows = {row.name: row for row in convjit.inspect.explain(fast).others}
    assert rows["pool"].shape == f"max of {batch}x17x17x8 -> 9x9x8, k 3x3, s 2, p 1, f32"
    assert rows["pool#2"].kernel.startswith("cpu/pool.c ")
    assert "const cj_kernel max_pool2d_nx17x8" in convjit.inspect.source(fast, "pool")


def test_a_ported_network_has_no_transposes_around_its_pool():
    mx.random.seed(3)
    net = PortedNet().eval()
    fast = convjit.compile(lambda x: net.pool(nn.relu(net.stem(x)).transpose(TO_NHWC)).transpose(TO_NCHW))
    x = mx.random.normal((2, 3, 9, 8))
    np.testing.assert_allclose(fast(x), net.pool(nn.relu(net.stem(x)).transpose(TO_NHWC)).transpose(TO_NCHW), atol=1e-5)
    ir = convjit.inspect.ir(fast).partition("@forward")[2]
    assert ir.count("conv.pool") == 1
    assert ir.count("conv.rearrange(") == 1 and ir.count('"Transpose"') == 1  # where the program begins and ends
    assert ir.count("mlx.primitive") == 1


def test_only_the_cpu_has_kernels_for_pools():
    assert "raise-pool,raise-pool-gradient" in passes.pipeline_for("cpu")
    assert not any("raise-pool" in passes.pipeline_for(backend) for backend in ("metal", "simulator"))
    net, x = net_and_input(1)
    fast = convjit.compile(net, backend="simulator", pipeline=passes.OPTIMIZE)
    np.testing.assert_allclose(fast(x), net(x), rtol=1e-4, atol=1e-5)
    assert "conv.pool" not in convjit.inspect.ir(fast) and "conv.fused" in convjit.inspect.ir(fast)


def loss_of(net: Callable[[mx.array], mx.array], x: mx.array, target: mx.array) -> mx.array:
    return mx.square(net(x) - target).mean()


def test_a_train_step():
    (net, x), (twin, _) = net_and_input(3), net_and_input(3)
    target = mx.random.normal((3, 4))

    def step_of(net: Net) -> Callable[[mx.array], mx.array]:
        optimizer = optim.SGD(0.1)

        def step(x: mx.array) -> mx.array:
            loss, gradients = nn.value_and_grad(net, lambda x: loss_of(net, x, target))(x)
            optimizer.update(net, gradients)
            return loss

        return convjit.compile(step, inputs=net, outputs=net, fallback="error") if net is twin else step

    ours, plain = step_of(twin), step_of(net)
    for _ in range(3):
        np.testing.assert_allclose(ours(x), plain(x), rtol=1e-5)
    for (name, a), (_, b) in zip(*(tree_flatten(m.parameters()) for m in (twin, net)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5, err_msg=name)
    ir = convjit.inspect.ir(ours)
    assert ir.count("conv.pool ") == 4 and ir.count("conv.pool_gradient ") == 2
    assert '"Equal"' not in ir and ir.count('"Scatter"') == 1  # of the averages


def test_gradients_of_a_compiled_network():
    net, x = net_and_input(3)
    target, fast = mx.random.normal((3, 4)), convjit.compile(net, fallback="error")
    by_input, by_weights = (
        [gradient(call) for call in (fast, net)]
        for gradient in (
            lambda call: mx.grad(lambda x: loss_of(call, x, target))(x),
            lambda call: tree_flatten(nn.value_and_grad(net, lambda: loss_of(call, x, target))()[1]),
        )
    )
    np.testing.assert_allclose(*by_input, atol=1e-5)
    for (name, a), (_, b) in zip(*by_weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5, err_msg=name)
    ir = convjit.inspect.ir(fast)
    assert ir.count("conv.pool ") == 4 and ir.count("conv.pool_gradient ") == 2


def test_gradients_of_pools_in_a_row():
    x, w = (mx.random.normal(shape, key=mx.random.key(3)) for shape in ((2, 8, 6, 3), (2, 1, 1, 3)))
    pools = nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.MaxPool2d(2, 2), nn.MaxPool2d(2, 1))

    def function(x: mx.array, w: mx.array) -> list[mx.array]:
        return [mx.grad(lambda x: pools(x).square().sum())(x), mx.conv_general(x, w)]

    fast = convjit.compile(function, fallback="error")
    np.testing.assert_allclose(fast(x, w)[0], function(x, w)[0], atol=1e-5)
    assert convjit.inspect.ir(fast).count("conv.pool_gradient ") == 3


def break_kernels(monkeypatch: pytest.MonkeyPatch, is_broken: Callable[[AnyKernel], bool]) -> None:
    """Add to what stretches with such kernels give."""
    backend = registry.get("cpu")
    load = backend.load

    def load_broken(stretch):
        run = load(stretch)
        broken = any(is_broken(call.kernel) for call in stretch.calls)
        return (lambda inputs: [mx.array(np.array(y) + 1e-3) for y in run(inputs)]) if broken else run

    monkeypatch.setattr(backend, "load", load_broken)


def test_a_wrong_gradient_goes_back_to_mlx(monkeypatch, tmp_path):
    monkeypatch.setenv("CONVJIT_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(trust, "_failures", {})
    break_kernels(monkeypatch, lambda kernel: isinstance(kernel, PoolGradient))
    function, arrays = gradient_example("overlapping 2D", mx.float32)
    fast = convjit.compile(function)
    with pytest.warns(convjit.FallbackWarning, match=r"pool\.grad stays plain MLX: .* its kernel gave "):
        got = fast(*arrays)[0]
    assert mx.array_equal(got, function(*arrays)[0])
    ir = convjit.inspect.ir(fast)
    assert "conv.pool " in ir and "conv.pool_gradient" not in ir and '"Scatter"' in ir


def test_a_wrong_pool_goes_back_to_mlx(monkeypatch, tmp_path, capsys):
    """And elementwise kernels are still right, though the ops have other numbers then."""
    monkeypatch.setenv("CONVJIT_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(trust, "_failures", {})
    break_kernels(monkeypatch, lambda kernel: isinstance(kernel, Pool) and kernel.kind == "max")
    net, x = net_and_input(3)
    fast = convjit.compile(net)
    with pytest.warns(convjit.FallbackWarning, match=r"pool(#3)? stays plain MLX: .* its kernel gave ") as told:
        got = fast(x)
    np.testing.assert_allclose(got, net(x), rtol=1e-4, atol=1e-5)
    rows = convjit.inspect.explain(fast).others
    assert {row.name for row in rows if row.kernel == "plain MLX"} == {"pool", "pool#3"}
    assert {row.name.partition(".")[0] for row in rows if row.kernel != "plain MLX"} == {
        "pool#2",
        "pool#4",
        "elementwise",
    }
    assert 'mlx.primitive "Reduce"' in convjit.inspect.ir(fast)
    assert main(["repro", str(told[0].message).rpartition("repro ")[2]]) == 1
    said = capsys.readouterr().out
    assert "max of " in said and "run on cpu, as this convjit writes it: WRONG" in said
