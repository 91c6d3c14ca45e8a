"""How convolutions are checked while a function is captured: the layer is named, and nobody else notices."""

from __future__ import annotations

import re
import threading

import mlx.core as mx
import mlx.nn as nn
import pytest
from test_bad_input import CONVOLUTIONS, ones

import convjit
from convjit.tracing.checked import checked_convolutions


class Stem(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3)
        self.weight = mx.ones((4, 3, 3, 5))

    def __call__(self, x: mx.array) -> mx.array:
        return self.shifted(self.conv1(x))

    def shifted(self, x: mx.array) -> mx.array:
        return mx.conv2d(x, self.weight)


def namer(model: nn.Module):
    names = {id(module): name for name, module in model.named_modules()}
    return lambda module: names.get(id(module))


def test_a_layer_is_named():
    model = nn.Sequential(nn.ReLU(), Stem())
    with checked_convolutions(namer(model)):
        with pytest.raises(ValueError, match=re.escape("conv2d 'layers.1.conv1': input has 4 channels")):
            model(ones(1, 8, 8, 4))
        with pytest.raises(ValueError, match=re.escape("conv2d 'layers.1': input has 8 channels but weight (4, 3, 3")):
            model(ones(1, 8, 8, 3))
        with pytest.raises(ValueError, match=r"^conv2d: input has 4 channels"):
            nn.Conv2d(3, 8, 3)(ones(1, 8, 8, 4))


@pytest.mark.parametrize("groups", [0, 3])
def test_a_compiled_model_names_the_layer(groups: int):
    model = nn.Sequential(nn.ReLU(), Stem())
    model.layers[1].conv1.groups = groups
    with pytest.raises(ValueError, match=r"^conv2d 'layers\.1\.conv1': (groups must be|input has 3 channels)"):
        convjit.compile(model)(ones(1, 8, 8, 3))


def test_gradients_and_nested_captures():
    x, w = mx.random.normal((1, 6, 6, 2)), mx.random.normal((3, 3, 3, 2))

    def loss(w: mx.array) -> mx.array:
        return mx.conv2d(x, w).square().sum()

    plain = mx.grad(loss)(w)
    originals = [getattr(mx, name) for name in CONVOLUTIONS]
    with checked_convolutions(lambda _: "outer"):
        with checked_convolutions(lambda _: "inner"):
            assert mx.array_equal(mx.grad(loss)(w), plain)
        assert mx.conv2d is not originals[1]
        with pytest.raises(ValueError, match="conv2d 'outer': input has 2 channels"):
            nn.Conv2d(3, 8, 3)(x)
    assert [getattr(mx, name) for name in CONVOLUTIONS] == originals


def test_threads_overlap_and_others_are_not_touched():
    """Two captures that end in the order in which they began, and a thread that captures nothing."""
    original = mx.conv2d
    first_in, second_in, first_out = threading.Event(), threading.Event(), threading.Event()
    outcome: dict[str, object] = {}

    def first():
        with checked_convolutions(lambda _: None):
            first_in.set()
            second_in.wait(10)
        first_out.set()

    def second():
        first_in.wait(10)
        with checked_convolutions(lambda _: None):
            second_in.set()
            first_out.wait(10)
            outcome["wrapped"] = mx.conv2d is not original
            try:
                mx.conv2d(ones(1, 8, 8, 4), ones(6, 3, 3, 3))
            except ValueError as error:
                outcome["second"] = str(error)

    threads = [threading.Thread(target=f) for f in (first, second)]
    for thread in threads:
        thread.start()
    second_in.wait(10)
    with pytest.raises(ValueError, match=r"^\[conv\]"):
        mx.conv2d(ones(1, 8, 8, 4), ones(6, 3, 3, 3))
    for thread in threads:
        thread.join()
    assert outcome == {"wrapped": True, "second": "conv2d: input has 4 channels but weight (6, 3, 3, 3) expects 3"}
    assert mx.conv2d is original
