"""Rule 7: a capture touches nothing of the user's."""

import threading
import weakref

import mlx.core as mx
import mlx.nn as nn
import pytest
from checks import ConvNorm, Net, assert_close, fast_of, image, parameters, reasons, twins

import convjit


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
