"""Rule 7: what a function writes into objects, containers and names outside of modules is written as in plain MLX."""

import types
from collections import deque
from typing import ClassVar

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from checks import assert_close, fast_of, image, num_kernels, reasons, small_conv, twins

import convjit

GLOBAL_CONV = small_conv(40)
GLOBAL_TOTAL = mx.zeros(4)


class Memory:
    """An object of the user's that holds an array only after a first call."""

    def __init__(self):
        self.last, self.seen, self.calls = None, [], 0


@pytest.mark.parametrize("kind", ["attribute", "list", "number", "deque"])
def test_objects_and_deques_that_hold_no_arrays_at_first(kind):
    class Stateful(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.memory, self.recent = small_conv(), Memory(), deque(maxlen=2)

        def __call__(self, x):
            y, memory = self.conv(x), self.memory
            if kind == "attribute":
                y, memory.last = y if memory.last is None else y + memory.last, y
            if kind == "list":
                memory.seen.append(y)
                y = y + memory.seen[0]
            if kind == "number":
                memory.calls += 1
                y = y * memory.calls
            if kind == "deque":
                self.recent.append(y)
                y = y + self.recent[0]
            return nn.relu(y)

    net, twin = twins(Stateful)
    fast = convjit.compile(net, fallback="quiet")
    for seed in range(5):
        x = image(seed=seed)
        assert_close(fast(x), twin(x))
    assert net.memory.calls == twin.memory.calls and len(net.memory.seen) == len(twin.memory.seen)
    assert_close([*net.recent], [*twin.recent])
    assert num_kernels(fast) == (1 if kind == "attribute" else 0)


@pytest.mark.parametrize(
    ("before", "after"), [(1.0, 2.0), (0.0, -0.0), ({"scale": 1.0}, {"scale": 2.0}), (np.ones(2), np.zeros(2))]
)
def test_what_a_deque_holds_is_watched(before, after):
    conv, recent = small_conv(), deque([before])

    def step(x):
        scale = recent[0]["scale"] if isinstance(recent[0], dict) else recent[0]
        return nn.relu(conv(x)), 1 / mx.array(scale)

    fast = convjit.compile(step, fallback="error")
    for value in (before, before, before, after):
        if isinstance(value, dict):
            recent[0].update(value)
        else:
            recent[0] = value
        assert_close(fast(image()), step(image()))
    assert num_kernels(fast) == 1


class Head:
    def __call__(self, x):
        return HEAD(x)


HEAD = small_conv()


def test_weights_that_the_class_of_an_object_without_arrays_reads():
    head = Head()

    def step(x):
        return nn.relu(head(x))

    fast = convjit.compile(step, fallback="quiet")
    for _ in range(3):
        assert_close(fast(image()), step(image()))
        HEAD.weight = HEAD.weight * 2
    assert "'Head.__call__' reads 'HEAD', which holds arrays" in reasons(fast)


def test_objects_that_hold_each_other_deep():
    conv, last = small_conv(), None
    for _ in range(1000):
        last = types.SimpleNamespace(before=last)

    def step(x):
        return nn.relu(conv(x)) if last is not None else x

    fast = convjit.compile(step, fallback="quiet")
    assert_close(fast(image()), step(image()))
    assert reasons(fast) == "runs as plain MLX: it reads objects that hold each other too deep to be followed"


def remembering(read, write):
    conv = small_conv()

    def step(x):
        y, last = conv(x), read()
        write(y)
        return nn.relu(y if last is None else y + last)

    return step


def in_a_dict():
    memory = {"last": None}
    return remembering(lambda: memory["last"], lambda y: memory.update(last=y))


def in_a_list():
    memory = [None]
    return remembering(lambda: memory[0], lambda y: memory.__setitem__(0, y))


def in_an_object():
    memory = Memory()
    return remembering(lambda: memory.last, lambda y: setattr(memory, "last", y))


def in_an_object_of_an_object():
    memory = types.SimpleNamespace(inner=Memory())
    return remembering(lambda: memory.inner.last, lambda y: setattr(memory.inner, "last", y))


def in_an_object_in_a_list():
    memory = [Memory()]
    return remembering(lambda: memory[0].last, lambda y: setattr(memory[0], "last", y))


def in_a_table_of_a_class():
    class Remembering(nn.Module):
        table: ClassVar = {}

        def __init__(self):
            super().__init__()
            self.conv = small_conv()

        def __call__(self, x):
            y = self.conv(x)
            y = self.table["last"] = y + self.table.get("last", 0)
            return nn.relu(y)

    return Remembering()


@pytest.mark.parametrize(
    "make",
    [in_a_dict, in_a_list, in_an_object, in_an_object_of_an_object, in_an_object_in_a_list, in_a_table_of_a_class],
)
def test_what_is_remembered_outside_from_the_first_call_on(make):
    plain, fast = make(), convjit.compile(make(), fallback="quiet")
    for seed in range(4):
        x = image(seed=seed)
        assert_close(fast(x), plain(x))


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
