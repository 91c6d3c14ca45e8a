"""Rules 5 and 7: what a function writes into modules, inputs and weights is written as in plain MLX."""

import mlx.core as mx
import mlx.nn as nn
import pytest
from checks import (
    ConvNorm,
    assert_close,
    assert_different,
    fast_of,
    image,
    num_kernels,
    parameters,
    reasons,
    small_conv,
    twins,
)
from mlx.utils import tree_flatten

import convjit


def test_batch_norm_in_training():
    net, twin = twins(ConvNorm)
    fast = fast_of(net)
    for seed in range(4):
        x = image(2, 6, 6, 3, seed=seed)
        assert_close(fast(x), twin(x))
        assert_close(parameters(net), parameters(twin))
    assert_different(net.norm.running_mean, mx.zeros(4))
    assert num_kernels(fast) == 1
    net.eval(), twin.eval()
    assert_close(fast(x), twin(x))


def test_running_statistics_that_the_user_resets():
    (net, twin), x = twins(ConvNorm), image()
    fast = fast_of(net)
    for _ in range(3):
        for model in (net, twin):
            model.norm.running_mean = mx.zeros(4)
            model.norm.running_var[...] = 2.0
        assert_close(fast(x), twin(x))
        assert_close(fast(x), twin(x))
        assert_close(parameters(net), parameters(twin))


def test_new_slots_become_state():
    class Cached(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = small_conv()

        def __call__(self, x):
            y = self.conv(x)
            y = y + self.last if "last" in self else y
            self.last = y
            return nn.relu(y)

    (net, twin), x = twins(Cached), image()
    fast = fast_of(net)
    for step in range(4):
        assert_close(fast(x), twin(x))
        assert_close(net.last, twin.last)
        if step == 2:
            del net.last, twin.last


@pytest.mark.parametrize("kind", ["list", "dict", "attribute", "rotating"])
def test_state_in_containers(kind):
    class Stateful(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = small_conv()
            self.history = [mx.zeros((1, 6, 6, 4)), mx.ones((1, 6, 6, 4))]
            self.memory = {"total": mx.zeros(4), "count": mx.array(0)}

        def __call__(self, x):
            y = self.conv(x)
            if kind == "list":
                self.history.append(y)
                y = y + self.history[0]
            if kind == "rotating":
                self.history[:] = [self.history[1], y]
                y = y + self.history[0]
            if kind == "dict":
                self.memory["total"] = self.memory["total"] + y.sum((0, 1, 2))
                self.memory["count"] = self.memory["count"] + 1
                y = y * self.memory["count"]
            if kind == "attribute":
                self.last, self.before = y, self.get("last", y)
                y = y + self.before
            return nn.relu(y)

    net, twin = twins(Stateful)
    fast = convjit.compile(net, fallback="quiet")
    for seed in range(4):
        x = image(seed=seed)
        assert_close(fast(x), twin(x))
        assert_close([a for _, a in tree_flatten(net.state)], [a for _, a in tree_flatten(twin.state)])


def test_plain_attributes_that_a_call_changes():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.calls, self.log = small_conv(), 0, []

        def __call__(self, x):
            self.calls += 1
            self.log.append(self.calls)
            return self.conv(x) * self.calls

    net, x = Counting(), image()
    fast = convjit.compile(net, fallback="quiet")
    for n in range(1, 5):
        assert_close(fast(x), net.conv(x) * n)
        assert net.calls == n and net.log == list(range(1, n + 1))
    assert "'calls'" in reasons(fast) or "'log'" in reasons(fast)


IN_PLACE = {
    "x += 1": lambda x, conv: x.__iadd__(1.0),
    "x[...] = 0": lambda x, conv: x.__setitem__(Ellipsis, 0.0),
    "x[0, 1] = 5": lambda x, conv: x.__setitem__((0, 1), 5.0),
    "weight *= 2": lambda x, conv: conv.weight.__imul__(2.0),
    "bias[0] = 5": lambda x, conv: conv.bias.__setitem__(0, 5.0),
}


@pytest.mark.parametrize("name", IN_PLACE)
def test_writes_into_inputs_and_weights(name):
    """In plain MLX the caller sees them, once a call."""
    conv, twin = small_conv(), small_conv()

    def make(conv):
        def f(x):
            IN_PLACE[name](x, conv)
            return nn.relu(conv(x))

        return f

    fast, plain = convjit.compile(make(conv), fallback="quiet"), make(twin)
    for seed in range(3):
        x, y = image(seed=seed), image(seed=seed)
        assert_close(fast(x), plain(y))
        assert_close(x, y)
        assert_close(parameters(conv), parameters(twin))
    assert "in place" in reasons(fast)
