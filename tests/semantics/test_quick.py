"""Calls without Python: which ones run, that they see every change, and that they leave no reference behind."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

import convjit
from convjit.backends import registry
from convjit.backends.cpu import descriptors
from convjit.compiled import Compiled
from convjit.execution.entry import Entry
from convjit.guards.words import word

SHAPE = (1, 9, 11, 4)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = [nn.Conv2d(4, 6, 3), nn.Conv2d(6, 4, 3)]
        self.scale = 2.0
        self.table = {"bias": mx.ones((4,))}

    def __call__(self, x: mx.array, *more: mx.array) -> mx.array:
        for layer in self.layers:
            x = mx.maximum(layer(x), 0)
        return sum(more, x * self.scale + self.table["bias"])


def image(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> mx.array:
    x = mx.random.normal(shape, key=mx.random.key(seed))
    mx.eval(x)
    return x


def prepared(function: Any, *args: Any) -> Compiled:
    """A compiled function whose next call is quick, even if the result of the one before is still held."""
    fast = convjit.compile(function, fallback="error")
    _ = [fast(*args) for _ in range(3)]
    return fast


def quick_result(fast: Compiled, *args: Any) -> mx.array | None:
    assert fast._quick is not None
    return fast._quick(args)


def assert_right(fast: Compiled, plain: Callable[..., mx.array], *args: Any) -> None:
    for _ in range(3):
        np.testing.assert_allclose(np.array(fast(*args)), np.array(plain(*args)), rtol=2e-5, atol=2e-5)


def test_this_mlx_can_be_looked_into():
    """A new version of MLX may have another layout: then calls are slower, and this says so."""
    assert sys.platform != "linux" or registry.get("cpu")._runtime.quick.layout is not None


pytestmark = pytest.mark.skipif(descriptors.layout() is None, reason="needs MLX's descriptors")


def test_a_model():
    net = Net()
    fast = prepared(net, image())
    for seed in range(5):
        x = image(seed)
        result = quick_result(fast, x)
        assert result is not None
        np.testing.assert_allclose(np.array(result), np.array(net(x)), rtol=2e-5, atol=2e-5)


def test_a_compiled_class_and_constants():
    @convjit.compile(fallback="error")
    class Scaled(Net):
        def __call__(self, x: mx.array, times: float = 1.0) -> mx.array:
            return super().__call__(x) * times

    net, other, x, times = Scaled(), Scaled(), image(), 3.0
    fast = vars(Scaled)["__call__"]
    for _ in range(3):
        net(x, times)
    assert quick_result(fast, net, x, times) is not None
    assert quick_result(fast, other, x, times) is None and quick_result(fast, net, x, 2.0) is None
    assert_right(fast, fast._function, other, x, times)


def test_arguments_of_many_arrays():
    net = Net()
    more = [image(n, (1, 5, 7, 4)) for n in range(3)]
    fast = prepared(net, image(), *more)
    assert quick_result(fast, image(), *more) is not None and quick_result(fast, image(), *more[1:]) is None
    assert_right(fast, net, image(), *more)
    assert_right(fast, net, image(), more[0], more[0], more[0])


def frozen(net: Net) -> None:
    net.layers[0].freeze()


def by_attribute(net: Net) -> None:
    net.scale = 3.0


def by_new_weight(net: Net) -> None:
    net.layers[1].weight = net.layers[1].weight * 2


def in_place(net: Net) -> None:
    net.layers[1].bias += 1


def by_item(net: Net) -> None:
    net.table["bias"] = mx.zeros((4,))


def by_layer(net: Net) -> None:
    net.layers[1] = nn.Conv2d(6, 4, 3)


def by_longer_list(net: Net) -> None:
    net.layers.append(nn.Conv2d(4, 4, 1))


def by_update(net: Net) -> None:
    net.update({"layers": [{"bias": mx.ones((6,))}]})


@pytest.mark.parametrize(
    "change", [frozen, by_attribute, by_new_weight, in_place, by_item, by_layer, by_longer_list, by_update]
)
def test_every_change_is_seen(change: Callable[[Net], None]):
    net, x = Net(), image()
    fast = prepared(net, x)
    assert quick_result(fast, x) is not None
    change(net)
    mx.eval(net.parameters())
    assert quick_result(fast, x) is None
    assert_right(fast, net, x)
    assert quick_result(fast, x) is not None


def test_every_change_is_seen_after_a_call_that_was_interrupted(monkeypatch: pytest.MonkeyPatch):
    """What the quick call compares with is held as long as it is there: no descriptor comes again."""
    layer, x = nn.Conv2d(4, 6, 3), image()
    fast = prepared(layer, x)
    old = word(layer.weight)
    layer.weight *= 0.5
    with monkeypatch.context() as patched:
        patched.setattr(Entry, "run", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            fast(x)
    assert quick_result(fast, x) is None
    others = [mx.array(1.0) for _ in range(1000)]
    assert old not in map(word, others)
    assert_right(fast, layer, x)


factor = Net()


def test_bindings():
    global factor
    net = Net()

    def function(x: mx.array) -> mx.array:
        return net(x) + factor(x)

    x = image()
    fast = prepared(function, x)
    assert quick_result(fast, x) is not None
    net = Net()
    assert quick_result(fast, x) is None
    assert_right(fast, function, x)
    assert quick_result(fast, x) is not None
    factor = Net()
    assert quick_result(fast, x) is None
    assert_right(fast, function, x)


OTHERS: dict[str, Callable[[], mx.array]] = {
    "a larger batch": lambda: image(1, (2, 9, 11, 4)),
    "another size": lambda: image(1, (1, 11, 9, 4)),
    "not evaluated": lambda: image(1) + 1,
    "not in row order": lambda: mx.contiguous(image(1).transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3),
    "every second": lambda: image(1, (1, 18, 11, 4))[:, ::2],
    "another type": lambda: image(1).astype(mx.float16),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_arrays(kind: str):
    net = Net()
    fast = prepared(net, image())
    given = OTHERS[kind]()
    if kind != "not evaluated":
        mx.eval(given)
    assert quick_result(fast, given) is None
    expected = np.array(net(given.astype(mx.float32)))
    allowed = 2e-2 if given.dtype == mx.float16 else 2e-5
    np.testing.assert_allclose(np.array(fast(given).astype(mx.float32)), expected, rtol=allowed, atol=allowed)


def test_views_in_row_order_are_arrays_like_others():
    net = Net()
    fast = prepared(net, image())
    view = image(1, (3, *SHAPE[1:]))[1:2]
    mx.eval(view)
    assert quick_result(fast, view) is not None
    assert_right(fast, net, view)


def test_no_arrays_at_all():
    net = Net()
    fast = prepared(net, image())
    for args in [(), (image(), image()), (None,), (3,), ([image()],), (np.zeros(SHAPE, np.float32),)]:
        assert quick_result(fast, *args) is None


def test_transformations():
    net = Net()
    fast = prepared(net, image())
    x, t = image(3), image(4)
    seen: list[mx.array | None] = []

    def of(function: Callable[[mx.array], mx.array]) -> Callable[[mx.array], mx.array]:
        def run(x: mx.array) -> mx.array:
            if function is fast:
                seen.append(quick_result(fast, x))
            return function(x)

        return run

    def all_of(function: Callable[[mx.array], mx.array]) -> list[mx.array]:
        return [
            mx.grad(lambda x: of(function)(x).sum())(x),
            mx.vmap(of(function))(mx.stack([x, t])),
            mx.compile(of(function))(x),
        ]

    for actual, expected in zip(all_of(fast), all_of(net), strict=True):
        np.testing.assert_allclose(np.array(actual), np.array(expected), rtol=1e-4, atol=1e-4)
    mx.jvp(of(fast), [x], [t])
    assert len(seen) >= 4 and all(result is None for result in seen)


def test_gradients_of_weights():
    net, x = Net(), image()
    fast = prepared(net, x)
    _, gradients = nn.value_and_grad(net, lambda: fast(x).sum())()
    _, expected = nn.value_and_grad(net, lambda: net(x).sum())()
    np.testing.assert_allclose(
        np.array(gradients["layers"][0]["weight"]), np.array(expected["layers"][0]["weight"]), rtol=1e-4, atol=1e-4
    )


def test_switched_off():
    net, x = Net(), image()
    fast = prepared(net, x)
    net.__dict__["_called"] = called = []
    original = Net.__call__
    try:
        Net.__call__ = lambda self, *args: (called.append(1), original(self, *args))[1]
        convjit.disable()
        fast(x)
    finally:
        convjit.enable()
        Net.__call__ = original
    assert called


def test_no_references_are_left():
    net, x = Net(), image()
    fast = prepared(net, x)
    quick_call = fast._quick
    objects = [x, net, net.layers, mx.array, fast, fast._quick, net.layers[0].weight]
    before = [sys.getrefcount(o) for o in objects], sys.getrefcount(None)
    for _ in range(1000):
        assert quick_call((x,)) is not None
        assert quick_call((x, x)) is None and quick_call((3,)) is None
    assert [sys.getrefcount(o) for o in objects] == before[0]
    assert abs(sys.getrefcount(None) - before[1]) < 100


def test_arguments_are_not_kept_alive():
    net, x = Net(), image()
    before = sys.getrefcount(x)
    fast = prepared(net, x)
    assert fast._quick is not None and sys.getrefcount(x) == before


def test_results_are_each_others_input():
    net = Net()
    net.layers = [nn.Conv2d(4, 4, 3, padding=1)]
    x = image()
    fast = prepared(net, x)
    expected = x
    for _ in range(6):
        x, expected = fast(x), net(expected)
    np.testing.assert_allclose(np.array(x), np.array(expected), rtol=1e-3, atol=1e-3)


def test_threads_and_updates_in_place():
    """The convolution of a constant image is constant: a mixture of two images would show."""
    layer = nn.Conv2d(8, 8, 3, bias=False)
    fast = prepared(layer, mx.ones((1, 40, 40, 8)))
    together = threading.Barrier(3)

    def work(seed: int) -> bool:
        x = mx.full((1, 40, 40, 8), float(seed))
        mx.eval(x)
        together.wait(timeout=30)
        good = True
        held = fast(x)
        for _ in range(100):
            x += 1
            mx.eval(x)
            y = fast(x)
            good &= float(mx.abs(y - y[:, :1, :1]).max()) <= 1e-4 * float(mx.abs(y).max())
            good &= np.allclose(np.array(held)[0, 0, 0] * 2, np.array(fast(x - 1) + held)[0, 0, 0]) or held is not y
            held = y
        return good

    with ThreadPoolExecutor(3) as pool:
        assert all(pool.map(work, range(1, 4)))
