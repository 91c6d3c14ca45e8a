"""Rule 1: tracers that a function captures, in closure cells and containers, at its first call or later."""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from checks import assert_close, assert_gradients, fast_of, image, num_kernels, small_conv

import convjit


def test_compiled_inside_the_differentiated_function():
    x, w = image(), small_conv().weight

    def loss(w, wrap):
        return wrap(lambda x: nn.relu(mx.conv2d(x, w)))(x).square().sum()

    for _ in range(2):
        actual = mx.grad(lambda w: loss(w, convjit.compile))(w)
        assert_gradients(actual, mx.grad(lambda w: loss(w, lambda f: f))(w))


def test_closure_cell_that_held_a_plain_array_at_the_first_call():
    x, weight = image(), small_conv().weight
    w = weight

    def plain(x):
        return nn.relu(mx.conv2d(x, w))

    fast = fast_of(plain)
    expected = plain(x)
    assert_close(fast(x), expected)

    def loss(value, function):
        nonlocal w
        w = value
        try:
            return function(x).square().sum()
        finally:
            w = weight

    assert_gradients(mx.grad(lambda w: loss(w, fast))(weight), mx.grad(lambda w: loss(w, plain))(weight))
    assert_close(fast(x), expected)


def test_closure_cell_that_holds_a_tracer_at_the_first_call():
    """Nothing of the transformation may stay in what is compiled afterwards."""
    x, weight = image(), small_conv().weight
    w = weight

    def plain(x):
        return nn.relu(mx.conv2d(x, w))

    fast = fast_of(plain)

    def loss(value, function):
        nonlocal w
        w = value
        try:
            return function(x).square().sum()
        finally:
            w = weight

    assert_gradients(mx.grad(lambda w: loss(w, fast))(weight), mx.grad(lambda w: loss(w, plain))(weight))
    assert_close(fast(x), plain(x))
    assert num_kernels(fast) == 1


def test_a_tracer_behind_stop_gradient_is_not_frozen():
    x, weight = image(), small_conv().weight
    w = weight

    def plain(x):
        return mx.conv2d(x, mx.stop_gradient(w))

    fast = fast_of(plain)

    def loss(value):
        nonlocal w
        w = value
        try:
            return (fast(x) * value.sum()).sum()
        finally:
            w = weight

    mx.eval(mx.grad(loss)(weight * 2))
    assert_close(fast(x), plain(x))


CONTAINERS = {
    "dict": lambda w: {"w": w},
    "nested": lambda w: {"layers": [{"w": w}]},
    "list": lambda w: [w],
}


@pytest.mark.parametrize("kind", CONTAINERS)
@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
def test_tracers_in_a_container_of_bare_arrays(kind, warm):
    """`params["w"]` of a function's closure, replaced by a tracer: frozen or not, a gradient is never silently zero."""
    x, weight = image(), small_conv().weight
    params = CONTAINERS[kind](weight)

    def place() -> tuple[Any, Any]:
        return {"dict": (params, "w"), "list": (params, 0)}.get(kind) or (params["layers"][0], "w")

    def plain(x):
        container, key = place()
        return mx.conv2d(x, container[key])

    fast = convjit.compile(plain, fallback="quiet")
    if warm:
        assert_close(fast(x), plain(x))

    def loss(value, function):
        container, key = place()
        container[key] = value
        try:
            return function(x).square().sum()
        finally:
            container[key] = weight

    assert_gradients(mx.grad(lambda w: loss(w, fast))(weight), mx.grad(lambda w: loss(w, plain))(weight))
    assert_close(fast(x), plain(x))
