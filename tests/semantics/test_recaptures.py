"""Functions that are captured again and again: how many programs are kept, and what users are told."""

import gc
import weakref

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from checks import Net, assert_close, fast_of, image, small_conv

import convjit
from convjit import compiled

CONV = small_conv()


def test_more_signatures_than_are_kept(monkeypatch):
    monkeypatch.setattr(compiled, "_MAX_SIGNATURES", 3)
    fast, x = fast_of(lambda x, n: CONV(x) * n), image()
    for _ in range(2):
        for n in range(6):
            assert_close(fast(x, n), CONV(x) * n)
    assert len(fast._entries) == 3


class Unreadable:
    def __init__(self, number):
        self.number = number

    def __hash__(self):
        return self.number

    def __eq__(self, other):
        return self.number == other.number

    def __ne__(self, other):
        return False

    def __repr__(self):
        raise RuntimeError


@pytest.mark.parametrize(
    ("argument", "told"),
    [
        (lambda n: n, "an argument: 30 became 31."),
        (lambda n: n / 2, "an argument: 15.0 became 15.5."),
        (lambda n: mx.zeros((n, 1)), r"an argument: \(30, 1\) became \(31, 1\)."),
        (lambda n: {"n": [n > 30]}, "an argument: False became True."),
        (lambda n: [n] * n, "an argument: it has other parts."),
        (lambda n: np.int64(n), "an argument: one int64 became another one."),
        (lambda n: b"%08d" % n, "an argument: one bytes became another one."),
        (lambda n: Unreadable(n), "an argument: one Unreadable became another one."),
    ],
)
def test_a_function_that_is_captured_again_and_again_is_told_of(argument, told, monkeypatch):
    monkeypatch.setattr(compiled, "_MANY_CAPTURES", 2)
    fast = convjit.compile(lambda x, n: CONV(x))
    fast(image(), argument(30))
    with pytest.warns(convjit.RecaptureWarning, match=f"captured 2 times.*{told}"):
        fast(image(), argument(31))


class Batch:
    def __init__(self, n):
        self.images = image(seed=n)


def test_objects_that_are_new_in_every_call_are_told_of_and_not_kept(monkeypatch):
    monkeypatch.setattr(compiled, "_MANY_CAPTURES", 9)
    fast, kept = convjit.compile(lambda batch: CONV(batch.images)), []
    with pytest.warns(convjit.RecaptureWarning, match="another object of type Batch; a dict or a data class"):
        for n in range(12):
            batch = Batch(n)
            kept.append(weakref.ref(batch))
            assert_close(fast(batch), CONV(batch.images))
    gc.collect()
    assert sum(reference() is not None for reference in kept) <= 9  # eight programs, and the last


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda net: setattr(net, "scale", 2.5), "'scale': 1.0 became 2.5"),
        (lambda net: setattr(net, "act", nn.gelu), "'act': it became another object"),
        (lambda net: net.table.update(number=1), "the length of 'table': 2 became 3"),
        (lambda net: net.set_dtype(mx.bfloat16), r"'conv.weight': \(4, 3, 3, 3\) mlx.core.float32 became .*bfloat16"),
    ],
)
def test_what_changes_in_every_call_is_told_of(change, told, monkeypatch):
    monkeypatch.setattr(compiled, "_MANY_CAPTURES", 2)
    net = Net()
    fast = convjit.compile(net)
    fast(image())
    change(net)
    with pytest.warns(convjit.RecaptureWarning, match=f"What changed last was {told}"):
        fast(image())


def test_gradients_are_compared_with_gradients_when_they_are_told_of(monkeypatch):
    monkeypatch.setattr(compiled, "_MANY_CAPTURES", 4)
    fast = convjit.compile(lambda x, n: CONV(x).sum() * n)
    fast(image(), 1.0)
    mx.grad(fast)(image(), 1.0)
    fast(image(), 2.0)
    with pytest.warns(convjit.RecaptureWarning, match="an argument: 1.0 became 2.0"):
        mx.grad(fast)(image(), 2.0)
