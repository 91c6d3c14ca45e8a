"""A capture leaves classes, other threads and other objects as they were."""

import threading
from collections import deque
from contextlib import ExitStack

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import pytest
from checks import assert_close, fast_of, image
from owners import CONV, Holding, Net, Plain, captures

import convjit
from convjit.guards import reads
from convjit.guards.walk import Walk


def test_classes_are_what_they_were_after_a_capture():
    before = dict(vars(Net))
    fast = fast_of(Net())
    fast(image())
    assert dict(vars(Net)) == before and not reads._noted and not reads._active


def test_an_error_in_a_capture_leaves_classes_as_they_were():
    def read(net):
        raise ZeroDivisionError("the user's own")

    net = Net(read)
    fast = convjit.compile(net)
    for number in range(3):
        net.unread = number
        with pytest.raises(ZeroDivisionError):
            fast(image())
    assert "__getattribute__" not in vars(Net) and not reads._noted and not reads._active


def test_captures_in_two_threads_note_their_own_reads():
    first, second = Net(lambda net: net.factor), Net(lambda net: net.unread)
    both = threading.Barrier(2)

    def slowly(net, read):
        def reading(value):
            both.wait(30)
            found = read(value)
            both.wait(30)
            return found

        net.read = reading

    slowly(first, lambda net: net.factor)
    slowly(second, lambda net: net.unread)
    mx.eval(first.parameters(), second.parameters())
    compiled = [fast_of(first), fast_of(second)]
    x = image()
    threads = [threading.Thread(target=fast, args=(x,)) for fast in compiled]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [captures(fast) for fast in compiled] == [1, 1]
    assert not reads._noted and not reads._active


def test_another_thread_may_read_what_a_capture_may_not():
    owner, x = Holding(None), image()
    owner.recent = deque([mx.array(1.0)])
    inside, read = threading.Event(), threading.Event()
    lengths = []

    def function(x):
        inside.set()
        read.wait(30)
        return CONV(x) * owner.weight

    def look():
        inside.wait(30)
        try:
            lengths.append(len(owner.recent))
        finally:
            read.set()

    other = threading.Thread(target=look)
    other.start()
    convjit.compile(function, fallback="quiet")(x)
    other.join()
    assert lengths == [1]


def test_hooks_of_other_classes_of_an_object_go_on_working():
    class Renaming:
        def __getattribute__(self, name):
            return object.__getattribute__(self, "real" if name == "factor" else name)

    class Front:
        real = factor = 2.0

    class Both(Front, Renaming):
        def __init__(self):
            self.real = 3.0

    front, both, x = Front(), Both(), image()
    fast = fast_of(lambda x: CONV(x) * front.factor * both.factor)
    with reads.Reads().noted([front], lambda value: None, {}):
        assert both.factor == 3.0
    assert_close(fast(x), CONV(x) * 6.0)


def test_a_walk_goes_on_while_another_thread_notes():
    class Meddling:
        @property
        def fget(self):
            stack.enter_context(reads.Reads().noted([looked_at], lambda value: None, {}))
            return None

    class Looked:
        member, other = Meddling(), None

    looked_at = Looked()
    with ExitStack() as stack:
        Walk().follow(looked_at)
        assert reads._noted
    assert not reads._noted and not reads.HOOKS & vars(Looked).keys()


def test_what_makes_the_state_of_an_optimizer_changes_nothing_else():
    net, optimizer, counter, x = Net(), optim.SGD(0.01, momentum=0.9), Plain(None), image()
    counter.count = 0

    def step(x):
        counter.count += 1
        loss, gradients = nn.value_and_grad(net, lambda x: (net(x) ** 2).mean())(x)
        optimizer.update(net, gradients)
        return loss

    fast = convjit.compile(step, fallback="quiet")
    for _ in range(3):
        mx.eval(fast(x))
    assert counter.count == 3


def half(x):
    return x * 0.5


class Halving(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def __call__(self, x):
        return half(self.conv(x))


def test_functions_that_others_replace_count(monkeypatch):
    """As where the cell of a notebook runs again that defines a helper."""
    activation, net, x = nn.relu, Halving(), image()

    def function(x):
        return half(activation(CONV(x)))

    fast, faster = fast_of(function), fast_of(net)
    for _ in range(3):
        assert_close([fast(x), faster(x)], [function(x), net(x)])
    monkeypatch.setitem(globals(), "half", lambda x: x * 0.25)
    assert_close([fast(x), faster(x)], [function(x), net(x)])
    activation = nn.tanh
    assert_close(fast(x), function(x))
    assert [captures(fast), captures(faster)] == [3, 2]
