"""What `convjit.compile` returns, as an object: attributes, copies, pickles."""

import copy
import pickle

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import pytest
from checks import Net, assert_close, assert_different, fast_of, image, small_conv

import convjit


@convjit.compile
def doubled(x):
    return x * 2


def test_function_attributes_and_defaults_survive():
    conv, x = small_conv(), image()

    def plain(x, scale=2.0, *, shift=1.0):
        return conv(x) * scale * plain.gain + shift

    plain.gain = 3.0
    fast = fast_of(plain)
    assert_close(fast(x), plain(x))
    assert_close(fast(x, shift=0.0), plain(x, shift=0.0))
    assert fast.gain == 3.0 and fast.__name__ == "plain"


@pytest.mark.parametrize("decorated", [lambda f: convjit.compile(staticmethod(f)), lambda f: staticmethod(fast_of(f))])
def test_a_static_method_in_either_order(decorated):
    conv, x = small_conv(), image()

    class Layers:
        conv_and_relu = decorated(lambda x: nn.relu(conv(x)))

    for called in (Layers, Layers()):
        assert_close(called.conv_and_relu(x), nn.relu(conv(x)))


def test_attributes_of_a_model_are_written_to_the_model():
    net, x = Net(), image()
    fast = fast_of(net)
    before = fast(x)
    fast.conv = small_conv(9)
    assert net.conv is fast.conv
    assert_close(fast(x), net(x))
    assert_different(fast(x), before)
    fast.scale = 3.0
    assert_close(fast(x), net(x))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda fast: pickle.loads(pickle.dumps(fast))])
def test_copies_of_a_model_are_independent(copied):
    net, x = nn.Sequential(small_conv(), nn.ReLU()), image()
    fast = fast_of(net)
    expected = fast(x)
    twin = copied(fast)
    assert_close(twin(x), expected)
    twin.layers[0].weight = mx.zeros_like(net.layers[0].weight)
    assert_different(twin(x), expected)
    assert_close(fast(x), expected)
    with pytest.raises(convjit.CompileError):  # the options were copied, too
        twin(x.astype(mx.float64, stream=mx.cpu))


def test_a_shallow_copy_shares_the_model():
    net, x = nn.Sequential(small_conv(), nn.ReLU()), image()
    fast = fast_of(net)
    fast(x)
    twin = copy.copy(fast)
    net.layers[0].weight = net.layers[0].weight * 2
    assert_close(twin(x), net(x))


def test_a_decorated_function_is_pickled_by_its_name():
    assert pickle.loads(pickle.dumps(doubled)) is doubled
    assert copy.deepcopy(doubled) is doubled
    with pytest.raises((AttributeError, pickle.PicklingError)):
        pickle.dumps(convjit.compile(lambda x: x))


def test_an_optimizer_updates_a_compiled_model():
    model, twin, x = nn.Sequential(small_conv(), nn.ReLU()), nn.Sequential(small_conv(), nn.ReLU()), image()
    fast = fast_of(model)
    for net in (fast, twin):
        gradients = nn.value_and_grad(net, lambda x: (net(x) ** 2).sum())(x)[1]  # noqa: B023
        optim.SGD(0.1).update(net, gradients)
    assert_close(fast(x), twin(x))
    assert "layers" in fast and "other" not in fast and fast["layers"] is model["layers"] and list(fast) == list(model)
    with pytest.raises(TypeError, match="not subscriptable"):
        fast_of(lambda x: x)[0]
