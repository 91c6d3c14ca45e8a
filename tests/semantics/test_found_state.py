"""Rule 4: where modules are found, and that bare arrays freeze."""

import functools
import types

import mlx.core as mx
import mlx.nn as nn
import pytest
from checks import (
    CallableHolder,
    Holder,
    Outer,
    assert_close,
    assert_different,
    assert_gradients,
    fast_of,
    image,
    num_kernels,
    reasons,
    small_conv,
)

import convjit

GLOBAL_CONV = small_conv(40)
GLOBAL_ARRAY = image(4, seed=41)
TABLE = {"conv": small_conv(42)}


class ModuleWithHolder(nn.Module):
    def __init__(self, conv):
        super().__init__()
        self.holder = Holder(conv)

    def __call__(self, x):
        return nn.relu(self.holder.conv(x))


class ModuleOverGlobal(nn.Module):
    def __call__(self, x):
        return nn.relu(GLOBAL_CONV(x))


class ModuleWithMethods(nn.Module):
    def __init__(self, conv):
        super().__init__()
        self.conv = conv

    def __call__(self, x):
        return self.head(self.body(x))

    def body(self, x):
        return self.conv(x)

    def head(self, x):
        return nn.relu(x)


class ModuleWithTuple(nn.Module):
    def __init__(self, conv):
        super().__init__()
        self.layers, self.gains = (conv,), (mx.ones(4), mx.full((4,), 2.0))

    def __call__(self, x):
        return nn.relu(self.layers[0](x) * self.gains[1])


def global_helper(x):
    return nn.relu(GLOBAL_CONV(x))


def calls_a_helper(x):
    return global_helper(x)


def uses_a_global(x):
    return nn.relu(GLOBAL_CONV(x))


def uses_a_table(x):
    return nn.relu(TABLE["conv"](x))


def keyword_default(conv):
    def f(x, *, conv=conv):
        return nn.relu(conv(x))

    return f


def positional_default(conv):
    def f(x, conv=conv):
        return nn.relu(conv(x))

    return f


def closure(conv):
    return lambda x: nn.relu(conv(x))


def nested_helpers(conv):
    def inner(x):
        return conv(x)

    def middle(x):
        return nn.relu(inner(x))

    return lambda x: middle(x)


def wrapped(conv):
    @functools.wraps(conv.__call__)
    def around(x):
        return nn.relu(conv(x))

    return around


def local_function(conv):
    def f(x):
        def inner(y):
            return nn.relu(conv(y))

        return inner(x)

    return f


def recursive(conv):
    def f(x, depth=0):
        return nn.relu(conv(x)) if depth else f(x, depth + 1)

    return f


def compiled_by_mlx(conv):
    return mx.compile(lambda x: nn.relu(conv(x)), inputs=[conv.state])


def calls_what_mlx_compiled(conv):
    inner = mx.compile(lambda x: nn.relu(conv(x)), inputs=[conv.state])
    return lambda x: inner(x)


PLACES = {
    "module": lambda conv: conv,
    "method of a module": lambda conv: ModuleWithMethods(conv).head and ModuleWithMethods(conv).__call__,
    "method named by another": lambda conv: ModuleWithMethods(conv),
    "bound method": lambda conv: conv.__call__,
    "closure": closure,
    "nested helpers": nested_helpers,
    "local function": local_function,
    "recursive": recursive,
    "functools.wraps": wrapped,
    "keyword default": keyword_default,
    "positional default": positional_default,
    "partial, positional": lambda conv: functools.partial(lambda c, x: nn.relu(c(x)), conv),
    "partial, keyword": lambda conv: functools.partial(lambda x, c: nn.relu(c(x)), c=conv),
    "partial of a bound method": lambda conv: functools.partial(conv.__call__),
    "list in a closure": lambda conv: (lambda layers: lambda x: nn.relu(layers[0](x)))([conv]),
    "tuple in a closure": lambda conv: (lambda layers: lambda x: nn.relu(layers[0](x)))((conv,)),
    "dict in a closure": lambda conv: (lambda layers: lambda x: nn.relu(layers["a"][0](x)))({"a": [conv]}),
    "plain object in a closure": lambda conv: (lambda holder: lambda x: nn.relu(holder.conv(x)))(Holder(conv)),
    "namespace": lambda conv: (lambda ns: lambda x: nn.relu(ns.conv(x)))(types.SimpleNamespace(conv=conv)),
    "method of a plain object": lambda conv: Outer(conv).run,
    "callable object": CallableHolder,
    "callable object in a closure": lambda conv: closure(CallableHolder(conv)),
    "plain object in a module": ModuleWithHolder,
    "tuple in a module": ModuleWithTuple,
    "compiled by convjit": lambda conv: convjit.compile(conv),
    "calls what convjit compiled": lambda conv: closure(convjit.compile(conv)),
    "compiled by mlx": compiled_by_mlx,
    "calls what mlx compiled": calls_what_mlx_compiled,
}


@pytest.mark.parametrize("place", PLACES)
def test_found_wherever_it_is(place):
    """New weights are seen, and gradients flow to them, wherever the function takes its convolution from."""
    conv, x = small_conv(), image()
    plain = PLACES[place](conv)
    fast = convjit.compile(plain, fallback="quiet")
    assert_close(fast(x), plain(x))
    for change in (lambda: conv.weight * 2, lambda: conv.weight + 1):
        before = fast(x)
        conv.weight = change()
        assert_close(fast(x), plain(x))
        assert_different(fast(x), before)
    conv.bias[...] = 3.0
    assert_close(fast(x), plain(x))
    if not place.endswith(("compiled by mlx", "mlx compiled")):
        assert num_kernels(fast) == 1 and not reasons(fast)
    actual = nn.value_and_grad(conv, lambda m: fast(x).square().sum())(conv)
    assert_gradients(actual, nn.value_and_grad(conv, lambda m: plain(x).square().sum())(conv))
    assert_close(fast(x), plain(x))


def module_over_global():
    return ModuleOverGlobal()


@pytest.mark.parametrize("make", [lambda: uses_a_global, lambda: calls_a_helper, module_over_global])
def test_global_module(make):
    plain, x = make(), image()
    fast = convjit.compile(plain, fallback="quiet")
    assert_close(fast(x), plain(x))
    GLOBAL_CONV.weight = GLOBAL_CONV.weight * 1.5
    assert_close(fast(x), plain(x))
    actual = nn.value_and_grad(GLOBAL_CONV, lambda m: fast(x).square().sum())(GLOBAL_CONV)
    assert_gradients(actual, nn.value_and_grad(GLOBAL_CONV, lambda m: plain(x).square().sum())(GLOBAL_CONV))


@pytest.mark.parametrize("plain", [uses_a_global, calls_a_helper])
def test_global_module_rebound(plain, monkeypatch):
    x = image()
    fast = fast_of(plain)
    assert_close(fast(x), plain(x))
    for seed in (50, 51):
        monkeypatch.setitem(globals(), "GLOBAL_CONV", small_conv(seed))
        assert_close(fast(x), plain(x))


def test_global_container_of_modules():
    x = image()
    fast = fast_of(uses_a_table)
    assert_close(fast(x), uses_a_table(x))
    for seed in (52, 53):
        TABLE["conv"] = small_conv(seed)
        assert_close(fast(x), uses_a_table(x))


class Settings:
    conv = small_conv(43)
    mean = image(3, seed=44)


NAMESPACE = types.ModuleType("a_module_of_the_users")
NAMESPACE.conv, NAMESPACE.mean = small_conv(45), image(3, seed=46)


def reads_a_module(x):
    return nn.relu(NAMESPACE.conv(x))


def reads_a_class(x):
    return nn.relu(Settings.conv(x))


def reads_constants(x):
    conv = GLOBAL_CONV
    return nn.relu(conv(x - NAMESPACE.mean - Settings.mean))


@pytest.mark.parametrize("plain", [reads_a_module, reads_a_class, reads_constants])
def test_namespaces(plain):
    """Weights behind a class or a module of Python cannot be exchanged for tracers: plain MLX, with the reason."""
    x = image()
    conv = {reads_a_module: NAMESPACE.conv, reads_a_class: Settings.conv}.get(plain, GLOBAL_CONV)
    fast = convjit.compile(plain, fallback="quiet")
    for _ in range(2):
        assert_close(fast(x), plain(x))
        conv.weight = conv.weight * 1.5
    actual = nn.value_and_grad(conv, lambda m: fast(x).square().sum())(conv)
    assert_gradients(actual, nn.value_and_grad(conv, lambda m: plain(x).square().sum())(conv))
    if plain is reads_constants:
        assert {name for name, _, _ in convjit.inspect.explain(fast).captured} == {"mean"}
    else:
        assert "reads 'conv', which holds arrays, from outside" in reasons(fast)


def test_closure_cell_rebound_to_another_module():
    conv, x = small_conv(), image()

    def plain(x):
        return nn.relu(conv(x))

    fast = fast_of(plain)
    for seed in (5, 6, 5):
        conv = small_conv(seed)
        assert_close(fast(x), plain(x))


class Config:
    def __init__(self, scale):
        self.scale, self.parts = scale, [scale]


KIND = Config(7.0)


class Configured(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.settings, self.kind = small_conv(43), Config(1.0), KIND
        self.options = {"inner": types.SimpleNamespace(scale=1.0)}

    def __call__(self, x):
        settings, inner = self.settings, self.options["inner"]
        y = self.conv(x) * (settings.scale + settings.parts[0] + inner.scale)
        return y if self.kind is KIND else -y


@pytest.mark.parametrize("change", ["attribute", "list", "namespace", "new object"])
def test_settings_without_arrays_in_a_module(change):
    net, x = Configured(), image()
    fast = fast_of(net)
    for _ in range(4):
        before = fast(x)
        assert_close(before, net(x))
    if change == "attribute":
        net.settings.scale = 5.0
    if change == "list":
        net.settings.parts[0] = 5.0
    if change == "namespace":
        net.options["inner"].scale = 5.0
    if change == "new object":
        net.settings = Config(5.0)
    for _ in range(4):
        assert_different(fast(x), before)
        assert_close(fast(x), net(x))


def test_an_object_without_arrays_stays_the_same_object():
    net, x = Configured(), image()
    fast = fast_of(lambda x, kind: net(x) if net.kind is KIND and kind is KIND else -net(x))
    for _ in range(2):
        assert_close(fast(x, KIND), net(x))
        assert_close(fast(x, Config(7.0)), -net(x))


def test_bare_captured_arrays_freeze_and_are_listed():
    x, weight, gain = image(), small_conv().weight, image(4, seed=9)

    def plain(x):
        return mx.conv2d(x, weight) * gain + GLOBAL_ARRAY

    fast, theirs = fast_of(plain), mx.compile(plain)
    first = fast(x)
    assert_close(first, theirs(x))
    frozen = {name: (shape, size) for name, shape, size in convjit.inspect.explain(fast).captured}
    assert frozen == {"weight": ((4, 3, 3, 3), 432), "gain": ((4,), 16), "GLOBAL_ARRAY": ((4,), 16)}
    assert "frozen: weight (4, 3, 3, 3), 432 bytes" in str(convjit.inspect.explain(fast))
    gain = gain * 2
    weight[...] = 0.0
    assert_close(fast(x), first)
    if not mx.array_equal(theirs(x), plain(x)):  # MLX itself compiles nothing where it finds no compiler
        assert_close(theirs(x), first)
