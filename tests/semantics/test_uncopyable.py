"""What cannot be copied, or is a view of something else, stands in the way only where it is read."""

import types
import weakref
from collections import ChainMap, deque

import mlx.core as mx
import pytest
from checks import assert_close, fast_of, image
from owners import CONV, Plain, Slotted, Trainer, captures

import convjit


def uncopyable(kind):
    array = mx.array([2.0])
    if kind == "deque":
        return deque([array])
    return Slotted(array) if kind == "slots" else mx.compile(lambda x: x * array + CONV.bias.sum())


@pytest.mark.parametrize("kind", ["deque", "slots", "mx.compile"])
def test_what_cannot_be_copied_stands_in_the_way_only_if_it_is_read(kind):
    mx.random.seed(2)
    trainer, x = Trainer(), image()
    trainer.other = uncopyable(kind)
    fast = fast_of(trainer.step)
    for _ in range(3):
        trainer.keep_books(fast(x), x)
    assert captures(fast) == 1

    trainer.also = [trainer.other]

    @convjit.compile
    def reading(x):
        return CONV(x) if trainer.also else x

    with pytest.warns(convjit.FallbackWarning, match="other|also"):
        assert_close(reading(x), CONV(x))


@pytest.mark.parametrize("look", [lambda owner: owner.recent, lambda owner: vars(owner)["recent"]])
def test_a_capture_does_not_reach_what_cannot_be_copied(look):
    owner, x = Plain(None), image()
    owner.recent = deque([mx.array(1.0)])

    def function(x):
        y = CONV(x)
        try:
            look(owner).append(y.max())
        except ValueError:
            return x
        return y

    fast = convjit.compile(function, fallback="quiet")
    for number in range(3):
        assert_close(fast(x), CONV(x))
        assert len(owner.recent) == number + 2


def test_what_cannot_be_copied_is_found_behind_another_attribute_too():
    owner, other, x = Plain(None), Plain(None), image()
    owner.recent = deque([mx.array(1.0)])
    other.lists = [owner.recent]

    def function(x):
        y = CONV(x)
        if owner.factor:
            other.lists[0].append(y.max())
        return y

    fast = convjit.compile(function, fallback="quiet")
    for number in range(3):
        assert_close(fast(x), CONV(x))
        assert len(owner.recent) == number + 2


VIEWS = {
    "proxy": lambda owner: types.MappingProxyType(owner.table),
    "method": lambda owner: owner.table.get,
    "chain": lambda owner: ChainMap({}, owner.table),
    "reference": lambda owner: weakref.ref(owner.other),
}


@pytest.mark.parametrize("kind", VIEWS)
def test_what_is_read_through_a_view_of_something_else_counts(kind):
    owner, x = Plain(None), image()
    owner.table, owner.other = {"factor": 2.0}, Plain(None)
    owner.view = VIEWS[kind](owner)

    def function(x):
        view = owner.view
        found = view("factor") if kind == "method" else view().factor if kind == "reference" else view["factor"]
        return CONV(x) * found

    fast = fast_of(function)
    for number in range(4):
        owner.table["factor"] = owner.other.factor = float(number)
        owner.unread = owner.other.unread = number
        assert_close(fast(x), function(x))


def test_arrays_that_are_read_through_a_view_stay_plain():
    owner, x = Plain(None), image()
    owner.table = {"weight": mx.array(2.0)}
    owner.view = types.MappingProxyType(owner.table)

    def function(x):
        return CONV(x) * owner.view["weight"]

    fast = convjit.compile(function, fallback="quiet")
    for number in range(3):
        owner.table["weight"] = mx.array(float(number))
        assert_close(fast(x), function(x))


def test_a_view_that_is_not_read_is_in_nobodys_way():
    trainer, x = Trainer(), image()
    trainer.images = [image(seed=n) for n in range(3)]
    trainer.batches = iter(trainer.images)
    fast = fast_of(trainer.step)
    for _ in range(3):
        trainer.keep_books(fast(x), next(trainer.batches))
    assert captures(fast) == 1
