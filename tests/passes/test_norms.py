"""Norms: compiled they give what MLX gives, on kernels of the stretch around them; gradients stay right."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from graphs import traced
from mlx.utils import tree_flatten
from test_layouts import TO_NCHW, TO_NHWC

import convjit
from convjit import passes
from convjit.__main__ import main
from convjit.backends import registry
from convjit.ir import reference
from convjit.kernel import Norm
from convjit.proof import trust
from convjit.tracing.trace import Argument

Function = Callable[[mx.array, mx.array], list[mx.array]]

CHANNELS = 24

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "LayerNorm": lambda: nn.LayerNorm(CHANNELS),
    "LayerNorm without bias": lambda: nn.LayerNorm(CHANNELS, bias=False),
    "LayerNorm, not affine": lambda: nn.LayerNorm(CHANNELS, eps=0.25, affine=False),
    "RMSNorm, not affine": lambda: nn.Sequential(lambda x: mx.fast.rms_norm(x, None, 1e-5)),
    "RMSNorm": lambda: nn.RMSNorm(CHANNELS),
    "GroupNorm": lambda: nn.GroupNorm(4, CHANNELS, pytorch_compatible=True),
    "GroupNorm, not affine": lambda: nn.GroupNorm(3, CHANNELS, affine=False, pytorch_compatible=True),
    "GroupNorm of one group": lambda: nn.GroupNorm(1, CHANNELS, pytorch_compatible=True),
    "GroupNorm of channels": lambda: nn.GroupNorm(CHANNELS, CHANNELS, pytorch_compatible=True),
    "GroupNorm of MLX": lambda: nn.GroupNorm(4, CHANNELS),
    "GroupNorm of MLX, not affine": lambda: nn.GroupNorm(3, CHANNELS, affine=False),
    "GroupNorm of MLX, of one group": lambda: nn.GroupNorm(1, CHANNELS),
    "GroupNorm of MLX, of channels": lambda: nn.GroupNorm(CHANNELS, CHANNELS),
    "InstanceNorm": lambda: nn.InstanceNorm(CHANNELS),
    "InstanceNorm, affine": lambda: nn.InstanceNorm(CHANNELS, affine=True),
}

WITHOUT_PARAMETERS = (
    "LayerNorm, not affine",
    "RMSNorm, not affine",
    "GroupNorm, not affine",
    "GroupNorm of MLX, not affine",
    "InstanceNorm",
)

SHAPES = [(2, 13, CHANNELS), (2, 7, 5, CHANNELS), (1, 3, 4, 5, CHANNELS)]

TOLERANCE = {mx.float32: 4e-6, mx.float16: 4e-3, mx.bfloat16: 3e-2}


def layer_of(name: str, dtype: mx.Dtype = mx.float32) -> nn.Module:
    """With scales and shifts of their own."""
    layer = LAYERS[name]()
    for number, (key, value) in enumerate(tree_flatten(layer.parameters())):
        layer[key] = mx.random.uniform(0.5, 1.5, value.shape, key=mx.random.key(number))
    layer.set_dtype(dtype)
    return layer


def example(name: str, shape: tuple[int, ...], dtype: mx.Dtype = mx.float32) -> tuple[Function, list[mx.array]]:
    """A layer beside a convolution: it reads an argument, and so the same numbers on both sides."""
    layer = layer_of(name, dtype)
    shapes = shape, (2, *(1 for _ in shape[1:-1]), CHANNELS)
    arrays = [(mx.random.normal(s, key=mx.random.key(3)) * 3 + 2).astype(dtype) for s in shapes]
    return lambda x, w: [nn.silu(layer(x)), mx.conv_general(x, w)], arrays


def assert_close(got: mx.array, want: mx.array) -> None:
    assert (got.shape, got.dtype) == (want.shape, want.dtype)
    tolerance = TOLERANCE[want.dtype]
    numbers = (np.array(a.astype(mx.float32)) for a in (got, want))
    np.testing.assert_allclose(*numbers, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_gives_what_mlx_gives(name: str, dtype: mx.Dtype):
    for shape in SHAPES:
        function, arrays = example(name, shape, dtype)
        fast = convjit.compile(function, fallback="error")
        assert_close(fast(*arrays)[0], function(*arrays)[0])
        ir = convjit.inspect.ir(fast)
        assert ir.count("conv.norm") == 1 and "mlx.primitive" not in ir.partition("@forward")[2]


@pytest.mark.parametrize("name", WITHOUT_PARAMETERS)
def test_the_pass_keeps_the_meaning(name: str):
    function, arrays = example(name, SHAPES[1])
    module = traced(function, arrays, [Argument("x", "input"), Argument("w", "parameter")])
    passes.run(module, "raise-conv,raise-norm")
    module.verify()
    assert str(module).count("conv.norm") == 1 and '"Reduce"' not in str(module)
    assert_close(reference.run(module, arrays)[0], function(*arrays)[0])
    passes.run(module, "fuse-epilogue")
    module.verify()
    assert "Sigmoid Multiply" in str(module)
    assert_close(reference.run(module, arrays)[0], function(*arrays)[0])


class Net(nn.Module):
    """As a block of a VAE, behind a block of a ConvNeXt."""

    def __init__(self):
        super().__init__()
        self.stem, self.depthwise = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.layer_norm, self.wide, self.narrow = nn.LayerNorm(16), nn.Linear(16, 24), nn.Linear(24, 16)
        self.group_norm = nn.GroupNorm(4, 16, pytorch_compatible=True)
        self.conv1, self.instance_norm = nn.Conv2d(16, 8, 3, padding=1), nn.InstanceNorm(8, affine=True)
        self.conv2, self.rms_norm = nn.Conv2d(8, 6, 3), nn.RMSNorm(6)

    def __call__(self, x: mx.array) -> mx.array:
        x = self.stem(x)
        x = x + self.narrow(nn.gelu(self.wide(self.layer_norm(self.depthwise(x)))))
        x = self.conv1(nn.silu(self.group_norm(x)))
        return self.rms_norm(self.conv2(nn.relu(self.instance_norm(x))))


def net_and_input(batch: int) -> tuple[Net, mx.array]:
    mx.random.seed(5)
    return Net(), mx.random.normal((batch, 13, 14, 3))


@pytest.mark.parametrize("batch", [1, 3])
def test_a_network_is_one_stretch(batch: int):
    net, x = net_and_input(batch)
    fast = convjit.compile(net, fallback="error")
    for _ in range(4):  # from the third call on by a call in C
        np.testing.assert_allclose(fast(x), net(x), rtol=1e-4, atol=2e-5)
    ir = convjit.inspect.ir(fast)
    assert ir.count("conv.stretch(") == 1 and ir.count("conv.norm") == 4
    assert "mlx.primitive" not in ir.partition("@forward")[2]
    rows = {row.name: row for row in convjit.inspect.explain(fast).others}
    assert rows["norm"].shape == f"{batch}x11x12x16, f32" and rows["norm"].ops == "Multiply Add"
    assert rows["norm#2"].shape == f"{batch}x11x12x16 in 4 groups over 132 pixels, f32"
    assert rows["norm#2"].ops == "Multiply Add Sigmoid Multiply"
    assert rows["norm#3"].kernel.startswith("cpu/norm.c ")
    assert "const cj_kernel norm_nx16" in convjit.inspect.source(fast, "norm")


def test_conditioning_and_residuals_join():
    """An image's own scale, as in a diffusion model, and a residual; what follows a second way is a second result."""
    norm = nn.GroupNorm(4, 16, pytorch_compatible=True)

    def function(x: mx.array, w: mx.array, scale: mx.array) -> list[mx.array]:
        y = mx.conv2d(x, w, padding=1)
        z = norm(y) * (1 + scale[:, None, None]) + x
        return [z, nn.relu(z)]

    arrays = [mx.random.normal(s, key=mx.random.key(8)) for s in ((2, 7, 5, 16), (16, 3, 3, 16), (2, 16))]
    fast = convjit.compile(function, fallback="error")
    for got, want in zip(fast(*arrays), function(*arrays), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    (row,) = [row for row in convjit.inspect.explain(fast).others if row.name == "norm"]
    assert row.ops == "Multiply Add Multiply Add Maximum"


def test_standardised_weights_are_prepared_once():
    class Standardised(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = mx.random.normal((8, 3, 3, 4), key=mx.random.key(8))

        def __call__(self, x: mx.array) -> mx.array:
            flat = self.weight.reshape(8, -1)
            return mx.conv2d(x, mx.fast.layer_norm(flat, None, None, 1e-5).reshape(self.weight.shape))

    model, x = Standardised(), mx.random.normal((2, 6, 5, 4), key=mx.random.key(9))
    fast = convjit.compile(model, fallback="error")
    np.testing.assert_allclose(fast(x), model(x), rtol=1e-5, atol=2e-5)
    assert [part.count("conv.norm") for part in convjit.inspect.ir(fast).split("@forward")] == [1, 0]


def test_channels_first():
    """As a ported model normalises: groups of neighbouring channels of NCHW."""

    def function(x: mx.array, w: mx.array) -> mx.array:
        y = mx.conv2d(x.transpose(TO_NHWC), w).transpose(TO_NCHW)
        y = mx.fast.layer_norm(y.reshape(2, 3, -1), None, None, 1e-5).reshape(y.shape)
        return nn.relu(y)

    arrays = [mx.random.normal(s, key=mx.random.key(8)) for s in ((2, 4, 7, 5), (12, 3, 3, 4))]
    fast = convjit.compile(function, fallback="error")
    np.testing.assert_allclose(fast(*arrays), function(*arrays), rtol=1e-5, atol=1e-5)
    ir = convjit.inspect.ir(fast).partition("@forward")[2]
    assert "conv.norm" in ir and "as <[2, 15, 3, 4]>" in ir
    assert ir.count("conv.rearrange(") == 1 and ir.count('"Transpose"') == 1  # where the program begins and ends
    assert ir.count("mlx.primitive") == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e25])
@pytest.mark.parametrize("name", ["LayerNorm, not affine", "RMSNorm", "GroupNorm", "GroupNorm of MLX", "InstanceNorm"])
def test_extreme_values(name: str, value: float):
    function, (x, w) = example(name, SHAPES[1])
    x[1, 3, 2, 5] = value
    (got, _), (want, _) = (f(x, w) for f in (convjit.compile(function, fallback="error"), function))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    assert mx.isnan(want).any() or value == 1e25


def test_only_the_cpu_has_kernels_for_norms():
    assert "raise-norm" in passes.pipeline_for("cpu")
    assert not any("raise-norm" in passes.pipeline_for(backend) for backend in ("metal", "simulator"))


def loss_of(net: Callable[[mx.array], mx.array], x: mx.array) -> mx.array:
    return mx.square(net(x) - 1).mean()


def test_a_train_step():
    """Gradients read what is inside of the norms, which stay as they are."""
    (net, x), (twin, _) = net_and_input(3), net_and_input(3)

    def step_of(net: Net) -> Callable[[mx.array], mx.array]:
        optimizer = optim.SGD(0.1)

        def step(x: mx.array) -> mx.array:
            loss, gradients = nn.value_and_grad(net, lambda x: loss_of(net, x))(x)
            optimizer.update(net, gradients)
            return loss

        return convjit.compile(step, inputs=net, outputs=net, fallback="error") if net is twin else step

    ours, plain = step_of(twin), step_of(net)
    for _ in range(3):
        np.testing.assert_allclose(ours(x), plain(x), rtol=1e-5)
    for (name, a), (_, b) in zip(*(tree_flatten(m.parameters()) for m in (twin, net)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5, err_msg=name)


def test_gradients_of_a_compiled_network():
    net, x = net_and_input(3)
    fast = convjit.compile(net, fallback="error")
    by_input, by_weights = (
        [gradient(call) for call in (fast, net)]
        for gradient in (
            lambda call: mx.grad(lambda x: loss_of(call, x))(x),
            lambda call: tree_flatten(nn.value_and_grad(net, lambda: loss_of(call, x))()[1]),
        )
    )
    np.testing.assert_allclose(*by_input, atol=1e-5)
    for (name, a), (_, b) in zip(*by_weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5, err_msg=name)


def test_a_wrong_norm_goes_back_to_mlx(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("CONVJIT_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(trust, "_failures", {})
    backend = registry.get("cpu")
    load = backend.load

    def load_broken(stretch):
        run = load(stretch)
        broken = any(isinstance(c.kernel, Norm) and c.kernel.groups > 1 for c in stretch.calls)
        return (lambda inputs: [mx.array(np.array(y) + 2e-3) for y in run(inputs)]) if broken else run

    monkeypatch.setattr(backend, "load", load_broken)
    net, x = net_and_input(3)
    fast = convjit.compile(net)
    with pytest.warns(convjit.FallbackWarning, match=r"norm#[23] stays plain MLX: .* its kernel gave ") as told:
        got = fast(x)
    np.testing.assert_allclose(got, net(x), rtol=1e-4, atol=2e-5)
    rows = convjit.inspect.explain(fast).others
    assert {row.name for row in rows if row.kernel == "plain MLX"} == {"norm#2", "norm#3"}
    assert {"norm", "norm#4"} <= {row.name for row in rows if row.kernel.startswith("cpu/norm.c ")}
    assert main(["repro", str(told[0].message).rpartition("repro ")[2]]) == 1
    said = capsys.readouterr().out
    assert "groups over 132 pixels" in said and "run on cpu, as this convjit writes it: WRONG" in said
