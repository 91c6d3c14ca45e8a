"""The programs behind gradients through a compiled function: what they compute, what stays plain, how they look."""

import re

import mlx.core as mx
import mlx.nn as nn
import pytest
from checks import (
    Net,
    assert_close,
    fast_of,
    image,
    layers,
    num_kernels,
    small_conv,
)

import convjit
from convjit.backends import BackendError
from convjit.execution import entry


def test_a_function_that_cannot_be_compiled_runs_plain():
    conv, x = small_conv(), image()

    def plain(x):
        return conv(x) * (2 if x.sum().item() > 0 else 3)

    quiet, strict = convjit.compile(plain, fallback="quiet"), fast_of(plain)
    for _ in range(2):
        assert_close(mx.grad(lambda x: quiet(x).sum())(x), mx.grad(lambda x: plain(x).sum())(x))
        with pytest.raises(convjit.CompileError, match="evaluates an array"):
            mx.grad(lambda x: strict(x).sum())(x)
    assert "evaluates an array" in convjit.inspect.explain(quiet).reasons[0]


def test_the_backward_program_reads_the_results_of_relus_and_computes_nothing_before_them_again(runs):
    net, x = nn.Sequential(small_conv(), nn.BatchNorm(4), nn.ReLU(), small_conv(seed=5, in_channels=4)), image()
    fast = fast_of(net)
    x[0, 2, 3, 1], x[0, 5, 5, 0] = mx.nan, mx.inf
    actual, expected = (nn.value_and_grad(net, lambda f=f: f(x).square().sum())() for f in (fast, net))
    assert_close(actual, expected)
    _, forward, backward = convjit.inspect.ir(fast, "traced").split("func.func")
    assert '"Maximum"' in forward and '"Maximum"' not in backward
    assert re.search(r'"Greater"\(%kept\d+, ', backward)
    assert len(runs) == 2


def num_gradients(fast):
    """Of the last backward program: gradients by weights, and by inputs of convolutions."""
    backward = [layer for layer in layers(fast) if layer.startswith("backward")]
    by_weights = sum(".weight.grad" in layer for layer in backward)
    return by_weights, len(backward) - by_weights


@pytest.mark.parametrize("given", [lambda x: x, lambda x: mx.stop_gradient(mx.tanh(x))], ids=["input", "stopped"])
def test_a_gradient_by_the_input_that_nobody_asks_for_is_not_computed(given, runs):
    net, x = nn.Sequential(small_conv(), nn.ReLU(), small_conv(seed=5, in_channels=4)), image()
    fast = fast_of(net)
    for _ in range(2):
        actual, expected = (nn.value_and_grad(net, lambda x, f=f: f(given(x)).square().sum())(x) for f in (fast, net))
        assert_close(actual, expected)
        assert num_gradients(fast) == (2, 1)
    assert len(runs) == 4


def test_gradients_have_the_names_of_their_layers():
    """Those that are equal in all shapes, and one whose weight is no weight of a convolution as it is, too."""
    net, x = nn.Sequential(small_conv(), nn.ReLU(), *(small_conv(seed=s, in_channels=4) for s in (5, 6))), image()
    fast = fast_of(lambda x: mx.conv2d(net(x), -net.layers[3].weight))
    mx.eval(nn.value_and_grad(net, lambda: fast(x).sum())()[1])
    backward = [layer for layer in layers(fast) if ".weight.grad" in layer]
    assert sorted(backward) == [
        "backward net.layers.0.weight.grad",
        "backward net.layers.2.weight.grad",
        "backward net.layers.3.weight.grad",
        "backward net.layers.3.weight.grad#2",
    ]


def test_gradients_by_other_arguments_each_time(runs, monkeypatch):
    """Whatever was asked for before: each gradient is right, and the one after computes what this one was of."""
    compiled = []
    monkeypatch.setattr(entry, "lower", lambda *a, lower=entry.lower: compiled.append(a) or lower(*a))
    bias = nn.Linear(1, 4)

    def function(p, x):
        return nn.relu(mx.conv2d(x["image"], p["w"] * p["scale"], padding=1) + bias.bias)

    fast, arrays = fast_of(function), ({"w": small_conv().weight, "scale": mx.array(2.0)}, {"image": image()})

    def gradients(f, by):
        def loss(bias_array, p, x):
            bias.bias = bias_array
            return (f(p, x).square() * mx.arange(4)).sum()

        kept = bias.bias
        result = mx.grad(loss, argnums=by)(kept, *arrays)
        bias.bias = kept
        return result

    for by in (1, (1, 2), 2, 0, (0, 2), (0, 1, 2), 1, 1, (0, 1)):
        assert_close(gradients(fast, by), gradients(function, by))
    before, _ = len(compiled), runs.clear()
    assert_close(gradients(fast, (0, 1)), gradients(function, (0, 1)))
    assert len(compiled) == before and len(runs) == 2
    assert num_gradients(fast) == (1, 0)


def test_what_stays_plain_in_the_backward_program_is_an_error_too(monkeypatch):
    """It is compiled when the first gradient is asked for."""
    from convjit.backends.cpu import CpuBackend

    schedule = CpuBackend.schedule

    def refuse(self, kernel, *rest):
        if kernel.operation == "weight_gradient":
            return "no gradients here"
        return schedule(self, kernel, *rest)

    monkeypatch.setattr(CpuBackend, "schedule", refuse)
    net, x = small_conv(), image()
    strict, quiet = fast_of(net), convjit.compile(net, fallback="quiet")
    for _ in range(2):
        with pytest.raises(convjit.CompileError, match=r"conv\.weight\.grad stays plain MLX: no gradients here"):
            nn.value_and_grad(net, lambda: strict(x).sum())()
        actual, expected = (nn.value_and_grad(net, lambda f=f: f(x).sum())() for f in (quiet, net))
        assert_close(actual, expected)
    assert "no gradients here" in convjit.inspect.explain(quiet).reasons[0]


def test_a_backward_program_that_cannot_be_built_is_plain_mlx(monkeypatch):
    compile_capture = entry.compile_capture

    def failing(name, captured, *rest, **options):
        if any(argument.name == "cotangent0" for argument in captured.arguments):
            raise BackendError("no compiler here")
        return compile_capture(name, captured, *rest, **options)

    monkeypatch.setattr("convjit.gradients.gradient.compile_capture", failing)
    net, x = small_conv(), image()
    strict, quiet = fast_of(net), convjit.compile(net, fallback="quiet")
    with pytest.raises(convjit.CompileError, match="no compiler here"):
        mx.grad(lambda x: strict(x).square().sum())(x)
    for _ in range(2):
        actual, expected = (mx.grad(lambda x, f=f: f(x).square().sum())(x) for f in (quiet, net))
        assert_close(actual, expected)


def test_sources_and_ir_of_both_programs():
    net, x = Net(), image()
    fast = fast_of(net)
    mx.eval(nn.value_and_grad(net, lambda: fast(x).sum())()[1])
    text = convjit.inspect.ir(fast)
    assert text.count("func.func @forward") == 2 and "conv.weight_gradient" in text
    assert "cj_kernel" in convjit.inspect.source(fast, "backward table.conv")
    assert len(convjit.inspect.kernels(fast)) == num_kernels(fast) == 8


def test_a_weight_gradient_of_a_weight_gradient():
    """Both are kernels, where nothing lies between."""

    def gradient(x: mx.array, dy: mx.array) -> mx.array:
        weight = mx.zeros((dy.shape[-1], 3, 3, x.shape[-1]))
        return mx.vjp(lambda w: [mx.conv2d(x, w, padding=1)], [weight], [dy])[1][0]

    def plain(x: mx.array, dy: mx.array, again: mx.array) -> mx.array:
        return gradient(gradient(x, dy), again)

    arrays = [image(2, 5, 6, 3), image(2, 5, 6, 4), image(4, 3, 3, 2)]
    fast = fast_of(plain)
    assert_close(fast(*arrays), plain(*arrays), 1e-4)
    assert convjit.inspect.ir(fast).count("conv.weight_gradient ") == 2
