"""Rules 4, 5 and 7: where modules are found, what is written back, and that a capture touches nothing of the user's."""

import functools
import gc
import threading
import types
import weakref
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from checks import (
    ConvNorm,
    Net,
    assert_close,
    assert_different,
    assert_gradients,
    fast_of,
    image,
    num_kernels,
    reasons,
    small_conv,
    twins,
)
from mlx.utils import tree_flatten

import convjit

GLOBAL_CONV = small_conv(40)
GLOBAL_ARRAY = image(4, seed=41)
GLOBAL_TOTAL = mx.zeros(4)
TABLE = {"conv": small_conv(42)}


@dataclass
class Holder:
    """A plain object."""

    conv: nn.Module


class Outer:
    """A plain object that holds another one."""

    def __init__(self, conv):
        self.inner = Holder(conv)

    def run(self, x):
        return nn.relu(self.inner.conv(x))


class CallableHolder:
    def __init__(self, conv):
        self.conv = conv

    def __call__(self, x):
        return nn.relu(self.conv(x))


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


# name -> (the function around a convolution, the convolution or None for one that is its own)
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
    actual = nn.value_and_grad(conv, lambda m: fast(x).square().sum())(conv)
    assert_gradients(actual, nn.value_and_grad(conv, lambda m: plain(x).square().sum())(conv))
    assert_close(fast(x), plain(x))
    if not place.endswith(("compiled by mlx", "mlx compiled")):
        assert num_kernels(fast) == 1 and not reasons(fast)


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


def test_module_as_argument():
    x, convs = image(), [small_conv(seed) for seed in (3, 4, 5)]

    def plain(model, x):
        return nn.relu(model(x))

    fast = fast_of(plain)
    for conv in convs * 2:
        assert_close(fast(conv, x), plain(conv, x))
        assert_close(fast(x=x, model=conv), plain(conv, x))
        conv.weight = conv.weight * 1.5
        assert_close(fast(conv, x), plain(conv, x))


@pytest.mark.parametrize(
    "wrap",
    [Holder, Outer, lambda c: [c], lambda c: {"conv": (c,)}, CallableHolder, lambda c: c.__call__, closure],
    ids=["object", "nested object", "list", "dict", "callable object", "bound method", "function"],
)
def test_short_lived_containers_of_modules_as_arguments(wrap):
    """Each call gets a new container, at whatever address is free: its id says nothing."""
    x = image()

    def plain(holder, x):
        if isinstance(holder, Outer):
            return holder.run(x)
        if isinstance(holder, Holder):
            return holder.conv(x)
        if isinstance(holder, (dict, list)) and not isinstance(holder, nn.Module):
            return (holder["conv"][0] if isinstance(holder, dict) else holder[0])(x)
        return holder(x)

    fast = fast_of(plain)
    for seed in range(3, 9):
        assert_close(fast(wrap(small_conv(seed)), x), plain(wrap(small_conv(seed)), x))
        gc.collect()


@pytest.mark.parametrize("wrap", [lambda c: c.__call__, closure, CallableHolder, Holder])
def test_weights_behind_an_argument_that_stays(wrap):
    conv, x = small_conv(), image()
    argument = wrap(conv)

    def plain(f, x):
        return f.conv(x) if isinstance(f, Holder) else f(x)

    fast = fast_of(plain)
    for _ in range(3):
        assert_close(fast(argument, x), plain(argument, x))
        conv.weight = conv.weight * 2
    actual = nn.value_and_grad(conv, lambda m: fast(argument, x).square().sum())(conv)
    assert_gradients(actual, nn.value_and_grad(conv, lambda m: plain(argument, x).square().sum())(conv))


def test_decorated_method_of_a_plain_class():
    class Scaled:
        def __init__(self, seed, scale):
            self.conv, self.scale = small_conv(seed), scale

        @convjit.compile(fallback="error")
        def run(self, x, gain=1.0):
            return nn.relu(self.conv(x)) * (self.scale * gain)

    x = image()
    plain = lambda s, gain=1.0: nn.relu(s.conv(x)) * (s.scale * gain)  # noqa: E731
    for n in range(6):
        short_lived = Scaled(n, float(n))
        assert_close(short_lived.run(x), plain(short_lived))
    a, b = Scaled(3, 1.0), Scaled(4, 2.0)
    for scale in (1.0, 3.0):
        a.scale = scale
        for s in (a, b):
            assert_close(s.run(x), plain(s))
            assert_close(s.run(x, gain=2.0), plain(s, 2.0))
    assert_close(Scaled.run(a, x), plain(a))


def test_decorated_method_of_an_object_without_arrays():
    class Scale:
        def __init__(self):
            self.scale = 2.0

        @convjit.compile(fallback="error")
        def run(self, x, w):
            return mx.conv2d(x, w) * self.scale

    op, x, w = Scale(), image(), small_conv().weight
    assert_close(op.run(x, w), mx.conv2d(x, w) * 2.0)
    op.scale = 3.0
    assert_close(op.run(x, w), mx.conv2d(x, w) * 3.0)


def test_decorated_module_class():
    @convjit.compile(fallback="error")
    class Block(ConvNorm):
        def __init__(self, act):
            super().__init__()
            self.act = act

        def __call__(self, x):
            return self.act(super().__call__(x))

    x = image()
    blocks = [Block(act).eval() for act in (mx.tanh, mx.tanh, mx.exp)]
    for _ in range(2):
        for block in blocks:
            expected = block.act(nn.relu(block.norm(block.conv(x))))
            assert_close(block(x), expected)
            block.conv.weight = block.conv.weight * 1.5
    assert isinstance(blocks[0], Block) and isinstance(blocks[0], nn.Module)
    whole = fast_of(nn.Sequential(blocks[0], nn.Conv2d(4, 4, 3, padding=1)))
    assert_close(whole(x), nn.Sequential(*whole.layers)(x))
    assert num_kernels(whole) == 2


def test_decorated_method_of_a_module():
    class Block(ConvNorm):
        @convjit.compile(fallback="error")
        def features(self, x, scale=1.0):
            return nn.relu(self.norm(self.conv(x))) * scale

    x = image()
    for block in (Block().eval(), Block().eval()):
        for scale in (1.0, 2.0):
            assert_close(block.features(x, scale), nn.relu(block.norm(block.conv(x))) * scale)


# --- bare arrays freeze, as in mx.compile ----------------------------------------------------------------------


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


# --- what a function writes ------------------------------------------------------------------------------------


def parameters(model):
    return dict(tree_flatten(model.parameters()))


def test_batch_norm_in_training():
    (net, twin), fast = (pair := twins(ConvNorm)), None
    fast = fast_of(pair[0])
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

    (net, twin), fast = twins(Stateful), None
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


# --- nothing of the user's is touched --------------------------------------------------------------------------


class Watched(ConvNorm):
    """Looks at a live model while a copy of it is being captured."""

    live: weakref.ref
    seen: list

    def __call__(self, x):
        Watched.seen.append(identities(Watched.live()))
        if Watched.explode:
            self.norm.running_mean = self.conv(x).mean((0, 1, 2))
            self.extra = x
            raise ZeroDivisionError("the user's own")
        return super().__call__(x)

    explode = False


def identities(model):
    found = []

    def visit(container, items):
        found.append(("container", id(container), len(container)))
        for key, value in items:
            found.append((key, id(value)))
            if isinstance(value, nn.Module):
                visit(value, dict.items(value))
                visit(vars(value), vars(value).items())

    visit(model, dict.items(model))
    visit(vars(model), vars(model).items())
    return found


def test_no_live_object_changes_during_a_capture():
    net, x = Watched().eval(), image()
    Watched.live, Watched.seen, Watched.explode = weakref.ref(net), [], False
    before = identities(net)
    fast = fast_of(net)
    assert_close(fast(x), nn.relu(net.norm(net.conv(x))))
    assert Watched.seen and all(seen == before for seen in Watched.seen)
    assert identities(net) == before


def test_an_exception_leaves_everything_as_in_plain_mlx():
    (net, twin), x = twins(Watched), image()
    Watched.live, Watched.seen, Watched.explode = weakref.ref(net), [], True
    fast = fast_of(net)
    for model, call in ((net, fast), (twin, twin)):
        with pytest.raises(ZeroDivisionError, match="the user's own"):
            call(x)
        mx.eval(model.parameters())
    assert_close(parameters(net), parameters(twin))
    Watched.explode = False
    assert_close(fast(x), twin(x))


def test_train_statistics_are_updated_once_in_a_first_call_that_fell_back():
    class Strange(ConvNorm):
        """Refuses to run on a copy of itself."""

        def __call__(self, x):
            if id(self) != Strange.me:
                raise RuntimeError("a copy")
            return super().__call__(x)

    (net, twin), x = twins(Strange), image()
    fast = convjit.compile(net, fallback="quiet")
    for _ in range(2):
        Strange.me = id(net)
        actual = fast(x)
        Strange.me = id(twin)
        assert_close(actual, twin(x))
        assert_close(parameters(net), parameters(twin))
    assert "a copy" in reasons(fast)


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
    (conv, twin), fast = (small_conv(), small_conv()), None

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


def test_closure_arrays_that_accumulate():
    """`total += ...` on a captured array: no dead tracer stays in it, and it counts each call."""
    conv, x = small_conv(), image()
    total, expected = mx.zeros(4), mx.zeros(4)

    def plain(x):
        nonlocal total
        y = conv(x)
        total += y.sum((0, 1, 2))
        return y

    fast = convjit.compile(plain, fallback="quiet")
    for _ in range(3):
        assert_close(fast(x), conv(x))
        expected = expected + conv(x).sum((0, 1, 2))
        assert_close(total, expected)


def accumulates_globally(x):
    global GLOBAL_TOTAL
    y = GLOBAL_CONV(x)
    GLOBAL_TOTAL = GLOBAL_TOTAL + y.sum((0, 1, 2))
    return y


def test_global_arrays_that_are_replaced():
    x, before = image(), mx.array(GLOBAL_TOTAL)
    fast = convjit.compile(accumulates_globally, fallback="quiet")
    for n in range(1, 4):
        assert_close(fast(x), GLOBAL_CONV(x))
        assert_close(GLOBAL_TOTAL, before + n * GLOBAL_CONV(x).sum((0, 1, 2)))


@pytest.mark.parametrize("kind", ["list", "dict", "namespace", "argument"])
@pytest.mark.parametrize("weights", ["module", "argument"])
def test_results_stored_outside(kind, weights):
    """`history.append(y)`: either it happens at every call, or the function is not captured; never a dead tracer."""
    conv, x = small_conv(), image()
    history, latest, box = [], {}, types.SimpleNamespace(last=None)

    def store(y, into):
        if kind == "list":
            history.append(y)
        if kind == "dict":
            latest["y"] = y
        if kind == "namespace":
            box.last = y
        if kind == "argument":
            into["y"] = y

    def with_module(x, into):
        y = conv(x)
        store(y, into)
        return nn.relu(y)

    def with_argument(x, into, w):
        y = mx.conv2d(x, w)
        store(y, into)
        return nn.relu(y)

    fast = convjit.compile(with_module if weights == "module" else with_argument, fallback="quiet")
    for n in range(1, 4):
        into, x = {}, image(seed=n)
        fast(x, into) if weights == "module" else fast(x, into, conv.weight)
        y = conv(x) if weights == "module" else mx.conv2d(x, conv.weight)
        stored = {"list": history[-1:], "dict": [latest.get("y")], "namespace": [box.last], "argument": [into.get("y")]}
        assert_close(stored[kind], [y])
        assert len(history) == (n if kind == "list" else 0)


def test_memoised_constants_do_not_stop_a_capture():
    """A helper that keeps constants in a dict is common, and needs no plain MLX."""
    conv, x, memo = small_conv(), image(), {}

    def mask(n):
        if n not in memo:
            memo[n] = mx.array(np.tri(n, 4, dtype=np.float32))
        return memo[n]

    fast = fast_of(lambda x: conv(x) * mask(6))
    for _ in range(2):
        assert_close(fast(x), conv(x) * mask(6))


def test_function_attributes_and_defaults_survive():
    conv, x = small_conv(), image()

    def plain(x, scale=2.0, *, shift=1.0):
        return conv(x) * scale * plain.gain + shift

    plain.gain = 3.0
    fast = fast_of(plain)
    assert_close(fast(x), plain(x))
    assert_close(fast(x, shift=0.0), plain(x, shift=0.0))
    assert fast.gain == 3.0 and fast.__name__ == "plain"


def test_lazy_weights_are_evaluated_first():
    """Random initialisers of fresh layers are not part of the program."""
    net, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3)), image()
    fast = fast_of(net)
    assert_close(fast(x), net(x))
    assert_close(fast(x), net(x))


def test_two_threads_capture_the_same_model():
    net, x = Net(), image()
    fast, expected, barrier, results = fast_of(net), net(x), threading.Barrier(2), []
    mx.eval(expected)

    def call():
        barrier.wait(30)
        y = fast(x)
        mx.eval(y)
        results.append(y)

    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_close(results, [expected, expected])
    assert len(fast._entries) == 1 and all(len(entries) == 1 for entries in fast._entries.values())
