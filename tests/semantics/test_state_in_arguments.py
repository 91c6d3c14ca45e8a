"""Rule 4: modules, and objects that hold modules, as arguments; methods and classes that are compiled."""

import functools
import gc
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import pytest
from checks import (
    CallableHolder,
    ConvNorm,
    Holder,
    Outer,
    assert_close,
    assert_gradients,
    fast_of,
    image,
    num_kernels,
    reasons,
    small_conv,
)

import convjit


def closure(conv):
    return lambda x: nn.relu(conv(x))


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


class Slotted:
    __slots__ = ("conv", "scale")

    def __init__(self, seed):
        self.conv, self.scale = small_conv(seed), 1.0


class OwnCopy:
    def __init__(self, seed):
        self.conv, self.scale = small_conv(seed), 1.0

    def __copy__(self):
        raise NotImplementedError


@pytest.mark.parametrize("cls", [Slotted, OwnCopy])
@pytest.mark.parametrize("where", ["argument", "self", "closure"])
def test_objects_that_cannot_be_copied_run_plain(cls, where):
    """What they hold is neither frozen nor lost: plain MLX, with the reason."""

    def plain(holder, x):
        return nn.relu(holder.conv(x)) * holder.scale

    holder, x = cls(3), image()
    if where == "argument":
        compiled = convjit.compile(plain, fallback="quiet")
        fast = functools.partial(compiled, holder)
    elif where == "self":
        compiled = convjit.compile(plain, fallback="quiet")
        fast = compiled.__get__(holder)
    else:
        fast = compiled = convjit.compile(lambda x: plain(holder, x), fallback="quiet")
    for change in ("nothing", "weight", "scale", "conv"):
        if change == "weight":
            holder.conv.weight = holder.conv.weight * 1.5
        if change == "scale":
            holder.scale = 2.0
        if change == "conv":
            holder.conv = small_conv(4)
        assert_close(fast(x), plain(holder, x))
    assert cls.__name__ in reasons(compiled)


def test_a_frozen_value_with_slots_is_a_constant():
    @dataclass(frozen=True, slots=True)
    class Settings:
        stride: int = 1
        scale: float = 2.0

    conv, x = small_conv(), image()
    plain = lambda x, s: mx.conv2d(x, conv.weight, stride=s.stride) * s.scale  # noqa: E731
    fast = fast_of(plain)
    for settings in (Settings(), Settings(2), Settings(scale=3.0), Settings()):
        assert_close(fast(x, settings), plain(x, settings))
