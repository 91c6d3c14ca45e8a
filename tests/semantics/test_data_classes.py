"""Data classes of arrays as arguments: taken apart like dicts, unless the function writes into them."""

from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from checks import assert_close, fast_of, image, small_conv
from owners import captures

import convjit

CONV = small_conv()


@dataclass
class Batch:
    images: mx.array
    labels: Any = None
    name: str = "train"
    more: dict = field(default_factory=dict)

    def scaled(self):
        return self.images * 2


@dataclass(frozen=True, slots=True)
class Frozen:
    images: mx.array
    inner: Any = None


@dataclass
class State:
    total: mx.array
    history: list = field(default_factory=list)
    inner: Any = None


def test_a_new_one_in_every_call_is_captured_once():
    def plain(batch, *, frozen):
        y = CONV(batch.scaled()) + CONV(frozen.inner[0].images)
        return y * 2 if batch.name == "train" else y + batch.more["bias"]

    fast = fast_of(plain)
    for seed in range(4):
        one, two = Batch(image(seed=seed)), Frozen(image(), (Frozen(image(seed=seed + 7)), None))
        assert_close(fast(one, frozen=two), plain(one, frozen=two))
    assert captures(fast) == 1
    for seed in range(3):
        one = Batch(image(seed=seed), name="test", more={"bias": image(4, seed=seed)})
        assert_close(fast(one, frozen=two), plain(one, frozen=two))
    assert captures(fast) == 2


def test_what_one_function_returns_is_the_argument_of_another():
    encoder = fast_of(lambda x: Batch(CONV(x), more={"skip": x}))
    decoder = fast_of(lambda batch: (CONV(batch.more["skip"]) + batch.images, batch.more["skip"]))
    for seed in range(3):
        x = image(seed=seed)
        assert_close(decoder(encoder(x)), (CONV(x) * 2, x))
    assert captures(decoder) == 1


@pytest.mark.parametrize("write", ["attribute", "list", "nested", "new attribute"])
def test_what_a_function_writes_there_is_there_afterwards(write):
    @dataclass
    class Written(State):
        pass

    def plain(state, x):
        y = CONV(x)
        if write == "attribute":
            state.total = state.total + y.sum()
        if write == "list":
            state.history[0] = state.history[0] + y
        if write == "nested":
            state.inner.total = state.inner.total * y.max()
        if write == "new attribute":
            state.last = y
        return y

    fast, states = fast_of(plain), [Written(mx.zeros(()), [mx.array(1.0)], State(mx.ones(()))) for _ in range(2)]
    for seed in range(4):
        x = image(seed=seed)
        assert_close(fast(states[0], x), plain(states[1], x))
        for owner, other in ((states[0], states[1]), (states[0].inner, states[1].inner)):
            assert_close([owner.total, *owner.history], [other.total, *other.history])
        if write == "new attribute":
            assert_close(states[0].last, states[1].last)
    assert captures(fast) <= 2


def test_gradients_by_what_a_data_class_holds():
    def loss(x, y):
        return (fast(Batch(x, y)) ** 2).sum()

    def plain(batch):
        return CONV(batch.images) * batch.labels

    fast = fast_of(plain)
    x, y = image(), image(1, 6, 6, 4, seed=2)
    actual = mx.grad(loss, argnums=(0, 1))(x, y)
    fast = plain
    assert_close(actual, mx.grad(loss, argnums=(0, 1))(x, y))


@dataclass
class Holding:
    model: Any
    images: mx.array
    step: int = 0


def test_one_that_holds_a_module_is_followed():
    def plain(held):
        return nn.relu(held.model(held.images))

    held = Holding(small_conv(3), image())
    fast = fast_of(plain)
    for step in range(4):
        held.step = step
        held.model.weight = held.model.weight * 2
        assert_close(fast(held), plain(held))
    assert captures(fast) == 1


def test_one_that_holds_itself_is_followed():
    state = State(mx.ones(()))
    state.inner = [state]
    fast = convjit.compile(lambda state: CONV(image()) * state.inner[0].total, fallback="quiet")
    for number in range(3):
        state.total = mx.array(float(number))
        assert_close(fast(state), CONV(image()) * float(number))


def test_tracers_in_a_data_class_are_seen():
    fast = convjit.compile(lambda batch: CONV(batch.images), fallback="quiet")
    fast(Batch(image()))
    stacked = mx.stack([image(seed=n) for n in range(2)])
    assert_close(mx.vmap(lambda x: fast(Batch(x)))(stacked), mx.stack([CONV(x) for x in stacked]))
