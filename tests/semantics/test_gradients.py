"""Gradients through a compiled function, in a loop that is not compiled: on kernels, and those of plain MLX."""

import functools

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from checks import (
    ConvNorm,
    Tiny,
    assert_close,
    assert_gradients,
    fast_of,
    image,
    layers,
    num_kernels,
    small_conv,
    twins,
)
from mlx.utils import tree_flatten
from test_convolutions import definition

from convjit.execution import entry
from convjit.gradients.transforms import differentiable_convolutions


def trained(model, call, optimizer, evaluate, steps=4):
    """Losses and the state after some steps of a plain loop."""
    mx.random.seed(9)

    def loss(x, classes):
        return nn.losses.cross_entropy(call(x), classes, reduction="mean")

    step, losses = nn.value_and_grad(model, loss), []
    for seed in range(steps):
        value, gradients = step(image(3, 7, 7, 3, seed=seed), mx.array([0, 2, 1]))
        optimizer.update(model, gradients)
        mx.eval(evaluate(value, model, optimizer))
        losses.append(value)
    return losses, dict(tree_flatten(model.parameters())), dict(tree_flatten(optimizer.state)), mx.random.uniform()


EVALUATED = {
    "all state": lambda value, model, optimizer: (value, model.state, optimizer.state),
    "the loss": lambda value, model, optimizer: value,
    "nothing": lambda value, model, optimizer: (),
}


@pytest.mark.parametrize("evaluated", EVALUATED)
def test_a_training_loop_around_a_compiled_model(evaluated, runs):
    """BatchNorm's running statistics, the masks of dropout and the optimizer's state are as with plain MLX."""
    model, twin = twins(Tiny)
    fast, evaluate = fast_of(model), EVALUATED[evaluated]
    actual = trained(model, fast, optim.Adam(0.01), evaluate)
    assert_close(actual, trained(twin, twin, optim.Adam(0.01), evaluate), rtol=1e-4)
    assert not layers(fast, kernel=False)
    assert len(runs) == 8 and num_kernels(fast) >= 5  # four steps, forward and backward


def test_only_the_first_step_compiles(monkeypatch):
    model, compiled = Tiny(), []
    monkeypatch.setattr(entry, "lower", lambda *a, lower=entry.lower: compiled.append(a) or lower(*a))
    fast = fast_of(model)
    trained(model, fast, optim.SGD(0.1), EVALUATED["all state"], steps=1)
    assert len(compiled) == 2
    trained(model, fast, optim.SGD(0.1), EVALUATED["all state"])
    assert len(compiled) == 2


def test_against_finite_differences(runs):
    """In float64: conv, sigmoid, conv; by the input and by the first weight."""
    first, second = small_conv(), small_conv(seed=5, in_channels=4)
    x, c = image(), image(1, 6, 6, 4, seed=6)
    fast = fast_of(nn.Sequential(first, nn.Sigmoid(), second))

    def exact(x, weight):
        window = ((1, 1), (1, 1), (1, 1), (1, 1), (1, 1), 1, False)
        y = definition(x, weight, *window) + np.array(first.bias, np.float64)
        y = definition(1 / (1 + np.exp(-y)), second.weight, *window) + np.array(second.bias, np.float64)
        return float((y * np.array(c, np.float64)).sum())

    def loss(x, weight):
        first.weight = weight
        return (fast(x) * c).sum()

    weight = first.weight
    gradients = mx.grad(loss, argnums=(0, 1))(x, weight)
    first.weight = weight
    point = [np.array(a, np.float64) for a in (x, weight)]
    for n, gradient in enumerate(gradients):
        along, h = np.array(image(*gradient.shape, seed=8), np.float64), 1e-6
        ahead, behind = ([p + (s * h * along if m == n else 0) for m, p in enumerate(point)] for s in (1, -1))
        slope = (exact(*ahead) - exact(*behind)) / (2 * h)
        assert abs((np.array(gradient, np.float64) * along).sum() - slope) < 1e-4 * abs(slope)
    assert len(runs) == 2


def test_frozen_parameters_have_no_gradients():
    first, second = small_conv(), small_conv(seed=5, in_channels=4)
    net, x = nn.Sequential(first, nn.ReLU(), second), image()
    fast = fast_of(net)

    def assert_right():
        actual, expected = (nn.value_and_grad(net, lambda f=f: f(x).square().sum())() for f in (fast, net))
        assert_close(actual, expected)

    second.freeze()
    assert_right()
    assert sum(layer.startswith("backward") for layer in layers(fast)) == 2  # by a weight, and by an input
    second.weight = second.weight * 2
    assert_right()
    first.freeze(), second.unfreeze()
    assert_right()
    assert sum(layer.startswith("backward") for layer in layers(fast)) == 1
    first.weight = first.weight * 2
    assert_right()


def several(conv, x, n):
    """An array, an integer array and one whose derivative is infinite at a zero."""
    y = nn.relu(conv(x))
    return {"y": y, "largest": mx.argmax(y, axis=-1), "roots": [mx.sqrt(y)], "n": n + 1}


@pytest.mark.parametrize("use", ["y", "both"])
def test_several_results(use, runs):
    """What nothing depends on brings no gradient: 0 times the infinite one of a root would be NaN."""
    conv, x, n = small_conv(), image(), mx.array(3)
    fast = fast_of(functools.partial(several, conv))

    def loss(function):
        def of(x):
            results = function(x, n)
            assert results["largest"].dtype == mx.uint32 and results["n"].dtype == mx.int32
            return (results["y"].square() + (results["roots"][0] + 0.1 if use == "both" else 0)).sum()

        return of

    expected = mx.grad(loss(functools.partial(several, conv)))(x)
    for _ in range(2):
        assert_close(mx.grad(loss(fast))(x), expected)
    assert bool(mx.isnan(expected).any()) == (use == "both")
    assert len(runs) == (4 if use == "both" else 5)  # forward once more where the first guess was wrong


def test_integer_and_constant_arguments(runs):
    conv, rows = small_conv(), mx.array([0, 2, 1])

    def plain(x, rows, scale, *, mask):
        return conv(x[rows]) * scale * mask

    fast, x, mask = fast_of(plain), image(3, 6, 6, 3), mx.array([True, False, True, True])
    actual, expected = (mx.grad(lambda x, f=f: f(x, rows, 2.0, mask=mask).square().sum())(x) for f in (fast, plain))
    assert_gradients([actual], [expected])
    assert len(runs) == 2


def test_called_twice_in_one_loss(runs):
    """The second call reads the running statistics that the first one wrote, which the loss depends on as well."""
    (net, twin), x = twins(ConvNorm), image()
    fast = fast_of(net)

    def loss(model, call):
        def of():
            y = call(x).square().sum() + (call(2 * x) * 3).sum()
            return y + (model.norm.running_mean * 5).sum() + model.norm.running_var.square().sum()

        return of

    for _ in range(2):
        actual = nn.value_and_grad(net, loss(net, fast))()
        assert_close(actual, nn.value_and_grad(twin, loss(twin, twin))(), rtol=1e-4)
        assert_close(dict(tree_flatten(net.parameters())), dict(tree_flatten(twin.parameters())), rtol=1e-4)
    assert runs


def test_compiled_functions_in_each_other_and_beside_each_other(runs):
    """A compiled block in a compiled model runs as part of it; two compiled blocks of a plain model, one by one."""
    inner, outer, x = fast_of(small_conv()), small_conv(seed=5, in_channels=4), image()

    def plain(x):
        return outer(nn.relu(inner(x)))

    def loss(function):
        return lambda x: function(x).square().sum()

    expected = mx.grad(loss(lambda x: outer(nn.relu(small_conv()(x)))))(x)
    assert_close(mx.grad(loss(fast_of(plain)))(x), expected)
    assert len(runs) == 2
    second = fast_of(outer)
    assert_close(mx.grad(loss(lambda x: second(nn.relu(inner(x)))))(x), expected)
    assert len(runs) == 6


def test_the_gradient_stops_where_it_is_told_to(runs):
    conv = small_conv()

    def plain(x):
        y = conv(x)
        return y * mx.stop_gradient(mx.sigmoid(y))

    x, fast = image(), fast_of(plain)
    actual, expected = (mx.grad(lambda x, f=f: f(x).square().sum())(x) for f in (fast, plain))
    assert_gradients([actual], [expected])
    assert len(runs) == 2


TRANSFORMED = {
    "second derivative": lambda f, x: mx.grad(lambda x: mx.grad(lambda x: f(x).sum())(x).square().sum())(x),
    "tangent of the gradient": lambda f, x: mx.jvp(mx.grad(lambda x: f(x).sum()), [x], [2 * x])[1][0],
    "gradient of the tangent": lambda f, x: mx.grad(lambda x: mx.jvp(f, [x], [x])[1][0].square().sum())(x),
    "many cotangents": lambda f, x: mx.vmap(lambda c: mx.vjp(f, [x], [c])[1][0])(image(2, 1, 6, 6, 4)),
    "compiled": lambda f, x: mx.compile(lambda c: mx.vjp(f, [x], [c])[1][0])(image(1, 6, 6, 4)),
    "checkpoint": lambda f, x: mx.grad(lambda x: mx.checkpoint(f)(x).square().sum())(x),
    "checkpoint of a gradient": lambda f, x: mx.checkpoint(mx.grad(lambda x: f(x).square().sum()))(x),
}


@pytest.mark.parametrize("name", TRANSFORMED)
def test_other_transformations_around_and_inside(name):
    conv, x = small_conv(), image()
    fast = fast_of(lambda x: mx.sin(conv(x)))

    def plain(x):
        with differentiable_convolutions():  # MLX itself has no jvp of one
            return mx.sin(conv(x))

    for _ in range(2):
        actual, expected = TRANSFORMED[name](fast, x), TRANSFORMED[name](plain, x)
        assert_gradients([actual], [expected])
    assert_close(fast(x), mx.sin(conv(x)))


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16], ids=str)
def test_half_precision(dtype, runs):
    conv, x = small_conv(), image().astype(dtype)
    conv.set_dtype(dtype)
    fast = fast_of(conv)
    actual, expected = (nn.value_and_grad(conv, lambda f=f: f(x).square().mean())() for f in (fast, conv))
    assert_close(actual, expected, rtol=2e-2)
    assert len(runs) == 2


@pytest.mark.parametrize("by", [(0, 1), (1, 0), (0, 0), (1, 1)])
def test_gradients_of_gradients_by_one_argument_each(by):
    first, second = by
    x, w = image(), small_conv().weight

    def function(x, w):
        return mx.tanh(mx.conv2d(x, w, padding=1))

    fast = fast_of(function)

    def twice(f):
        def slope(*arrays):
            return mx.grad(lambda *a: f(*a).square().sum(), argnums=first)(*arrays).square().sum()

        return mx.grad(slope, argnums=second)(x, w)

    assert_close(twice(fast), twice(function), rtol=1e-4)


def test_gradients_of_gradients_that_are_one_array():
    """Those by two arguments in one group, which enter as a sum."""
    c, d, w = image(seed=6), image(seed=7), small_conv().weight

    def function(pair):
        return mx.tanh(mx.conv2d(pair["a"] + pair["b"], w, padding=1))

    def twice(f):
        def slopes(pair):
            found = mx.grad(lambda pair: f(pair).square().sum())(pair)
            return (found["a"] * c + found["b"] * d).sum()

        return mx.grad(slopes)({"a": image(), "b": image(seed=5)})

    assert_close(twice(fast_of(function)), twice(function), rtol=1e-4)


def test_a_gradient_is_by_the_frozen_weights_that_its_call_read(runs):
    first, second, x = small_conv(), small_conv(seed=5, in_channels=4), image()
    net = nn.Sequential(first, nn.Tanh(), second.freeze())
    fast, weight = fast_of(net), second.weight

    def loss(call):
        second.weight = weight
        value = call(x).square().sum()
        second.weight = 3 * weight
        return value + (call(x) * mx.arange(4)).sum()

    for _ in range(2):
        actual, expected = (nn.value_and_grad(net, lambda f=f: loss(f))() for f in (fast, net))
        assert_close(actual, expected, rtol=1e-4)
    assert len(runs) == 8


@pytest.mark.parametrize("order", [1, 2])
def test_a_model_that_changes_its_mode_before_the_gradient_is_computed(order):
    """What is captured, or runs as plain MLX, only then is in the mode of the call."""
    net, x = ConvNorm(), image()

    def both(x):
        y = net(x)
        return y, y.sum()

    def loss(call, x):
        net.train()
        value = (call(x)[0] * image(seed=6).sum()).square().mean()
        net.eval()
        return value

    def gradient(call):
        slope = mx.grad(lambda x: loss(call, x))
        return slope(x) if order == 1 else mx.grad(lambda x: slope(x).square().sum())(x)

    fast = fast_of(both)
    for _ in range(2):
        assert_close(gradient(fast), gradient(both), rtol=1e-4)
