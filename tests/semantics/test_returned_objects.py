"""Data classes and other objects that a function makes and returns: new ones in every call, as in plain MLX."""

from collections import OrderedDict, deque
from dataclasses import FrozenInstanceError, dataclass, field
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from checks import assert_close, fast_of, image, reasons, small_conv

import convjit

CONV = small_conv()


@dataclass
class Output:
    sample: mx.array
    name: str = "out"
    history: list = field(default_factory=list)


@dataclass(frozen=True)
class Frozen:
    sample: mx.array
    name: str = "out"
    history: list = field(default_factory=list)
    more: Any = None

    @property
    def doubled(self):
        return self.sample * 2


@dataclass(slots=True)
class Slotted:
    sample: mx.array
    unset: Any = field(init=False)
    history: tuple = ()


class Plain:
    def __init__(self, sample):
        self.sample, self.history = sample, {"again": sample * 2}


@pytest.mark.parametrize("kind", [Output, Frozen, Slotted, Plain, lambda y: SimpleNamespace(sample=y, history=[])])
def test_objects_of_arrays_are_returned(kind):
    x = image()
    fast = fast_of(lambda x: (kind(CONV(x)), {"inner": [kind(x + 1)]}))
    expected_type = type(kind(x))
    for number in range(4):
        outer, rest = fast(x * number)
        assert type(outer) is type(rest["inner"][0]) is expected_type
        assert_close(outer.sample, CONV(x * number))
        assert_close(rest["inner"][0].sample, x * number + 1)
        assert_close(outer.history, kind(CONV(x * number)).history)
        assert not hasattr(outer, "unset")


def test_methods_defaults_and_rules_of_data_classes_hold():
    x = image()
    fast = fast_of(lambda x: Frozen(CONV(x), more=Output(x, "inner")))
    result = fast(x)
    assert_close(result.doubled, CONV(x) * 2)
    assert (result.name, result.more.name) == ("out", "inner")
    with pytest.raises(FrozenInstanceError):
        result.name = "other"
    result.history.append(1)
    result.more.sample = None
    assert fast(x).history == [] and fast(x).more.sample is not None


def test_ordered_dicts_are_returned():
    fast = fast_of(lambda x: OrderedDict(b=CONV(x), a=x))
    result = fast(image())
    assert type(result) is OrderedDict and list(result) == ["b", "a"]
    assert_close(result["b"], CONV(image()))


def test_gradients_through_a_returned_object():
    x = image()
    fast = fast_of(lambda x: Output(CONV(x) ** 2))
    gradient = mx.grad(lambda x: fast(x).sample.sum())(x)
    assert_close(gradient, mx.grad(lambda x: (CONV(x) ** 2).sum())(x))


class Keeping(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = small_conv()
        self.kept, self.settings = Plain(mx.ones(2)), SimpleNamespace(a=1)


@pytest.mark.parametrize(
    "result",
    [
        lambda net, y: (y, net),
        lambda net, y: (y, net.kept),
        lambda net, y: (y, net.settings),
        lambda net, y: (y, deque([y])),
        lambda net, y: Plain([nn.relu, y]),
    ],
)
def test_objects_that_were_there_before_are_not_returned_as_copies(result):
    net, x = Keeping(), image()
    fast = convjit.compile(lambda x: result(net, net.conv(x)), fallback="quiet")
    for _ in range(3):
        actual, expected = fast(x), result(net, net.conv(x))
        if isinstance(expected, tuple) and not isinstance(expected[1], deque):
            assert actual[1] is expected[1]
    assert "it returns an object of type" in reasons(fast)
