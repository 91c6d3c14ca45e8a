"""A program depends on the attributes that its function reads, however it reads them, and on no other ones."""

import copy
import inspect
import operator
import threading
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, runtime_checkable

import mlx.core as mx
import mlx.nn as nn
import pytest
from checks import assert_close, fast_of, image, parameters
from owners import CONV, Holding, Net, Plain, Slotted, Trainer, captures, function_of

import convjit

LOOK_UP = object.__getattribute__


@pytest.mark.parametrize("of_class", [False, True])
def test_a_trainer_may_keep_books(of_class):
    mx.random.seed(1)
    trainer = Trainer()
    mx.eval(trainer.model.parameters())
    twin = copy.deepcopy(trainer.model)
    mine = type("Mine", (Trainer,), {"step": convjit.compile(Trainer.step, fallback="error")} if of_class else {})
    trainer.__class__ = mine
    step = trainer.step if of_class else fast_of(trainer.step)
    reference = Trainer()
    reference.model = twin
    reference.loss_and_gradients = nn.value_and_grad(twin, reference.loss)
    for number in range(6):
        x = image(seed=number)
        loss, expected = step(x), reference.step(x)
        assert_close(loss, expected)
        trainer.keep_books(loss, x)
        reference.keep_books(expected, x)
    assert_close(parameters(trainer.model), parameters(twin), 1e-4)
    assert captures(step) == 1


def test_the_loop_around_a_decorated_model_may_keep_books():
    trainer = Trainer()
    fast = fast_of(trainer.model)
    loss_and_gradients = nn.value_and_grad(trainer.model, lambda x: (fast(x) ** 2).mean())
    for number in range(4):
        loss, gradients = loss_and_gradients(image(seed=number))
        trainer.optimizer.update(trainer.model, gradients)
        trainer.keep_books(loss, image())
        trainer.model.calls = number
    assert captures(fast) <= 2  # the attribute of the model is new in the second call


def matched(value):
    match value:
        case Plain(factor=number) | Net(factor=number):
            return number
    raise AssertionError


def in_a_thread(value):
    found = []
    thread = threading.Thread(target=lambda: found.append(value.factor))
    thread.start()
    thread.join()
    return found[0]


READERS = {
    "name": lambda value: value.factor,
    "getattr": lambda value: getattr(value, "fac" + "tor"),
    "vars": lambda value: vars(value)["factor"],
    "dict": lambda value: value.__dict__["factor"],
    "attrgetter": operator.attrgetter("factor"),
    "object": lambda value: object.__getattribute__(value, "factor"),
    "another name of that": lambda value: LOOK_UP(value, "factor"),
    "static": lambda value: inspect.getattr_static(value, "factor"),
    "copy": lambda value: copy.copy(value).factor,
    "match": matched,
    "thread": in_a_thread,
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", [Net, Plain, Holding])
def test_what_is_read_counts_however_it_is_read(kind, reader):
    (owner, function), x = function_of(kind, READERS[reader]), image()
    fast = convjit.compile(function, fallback="quiet")
    for factor in (2.0, 5.0, 0.0, -0.0, 5.0):
        owner.factor = factor
        for _ in range(4):
            assert_close(fast(x), function(x))


@pytest.mark.parametrize("kind", [Net, Plain, Holding])
def test_what_is_not_read_does_not_count(kind):
    (owner, function), x = function_of(kind, lambda value: value.factor), image()
    fast = fast_of(function)
    for number in range(6):
        owner.unread = number
        setattr(owner, f"new{number}", number)
        owner.history = [mx.array(float(number))] if kind is not Net else None
        assert_close(fast(x), function(x))
    assert captures(fast) == 1
    owner.factor = 7.0
    assert_close(fast(x), function(x))


@pytest.mark.parametrize("read", [lambda value: value.doubled, lambda value: value.renamed])
@pytest.mark.parametrize("kind", [Plain, Holding])
def test_properties_and_getattr_read_what_their_code_reads(kind, read):
    (owner, function), x = function_of(kind, read), image()
    fast = fast_of(function)
    for factor in (2.0, 5.0):
        owner.factor, owner.unread = factor, factor
        assert_close(fast(x), function(x))
    owner.unread = 8.0
    fast(x)
    assert captures(fast) == 2


@pytest.mark.parametrize("kind", [Net, Plain, Holding])
def test_attributes_that_were_looked_for_in_vain_count_when_they_appear(kind):
    read = lambda value: value.scale if hasattr(value, "on") else 1.0  # noqa: E731
    (owner, function), x = function_of(kind, read), image()
    fast = fast_of(function)
    for number in range(5):
        owner.unread = number
        plain = fast(x)
    before = captures(fast)
    owner.on = None
    assert_close(fast(x), plain * 3.0)
    for number in range(5):
        owner.unread = -number
        fast(x)
    owner.scale = 4.0
    assert_close(fast(x), plain * 4.0)
    del owner.scale
    assert_close(fast(x), plain * 3.0)
    del owner.on
    assert_close(fast(x), plain)
    assert captures(fast) == before + 2


def test_a_class_that_looks_attributes_up_by_itself_is_watched_altogether():
    class Own(Plain):
        def __getattribute__(self, name):
            return object.__getattribute__(self, "unread" if name == "factor" else name)

    (owner, function), x = function_of(Own, lambda value: value.factor), image()
    fast = fast_of(function)
    for number in range(3):
        owner.unread = number
        assert_close(fast(x), function(x))


@dataclass
class Config:
    width: int = 4
    name: str = "a"
    history: list = field(default_factory=list)


@pytest.mark.parametrize(
    ("read", "depends_on_the_name"),
    [
        (lambda config: config.width, False),
        (lambda config: len(repr(config)), True),
        (lambda config: config == Config(), True),
        (lambda config: len(asdict(config)["name"]), True),
    ],
)
def test_data_classes(read, depends_on_the_name):
    config, x = Config(), image()

    def function(x):
        return CONV(x) * float(read(config))

    fast = fast_of(function)
    for name in ("a", "bc", "def"):
        config.name = name
        assert_close(fast(x), function(x))
    assert captures(fast) == (3 if depends_on_the_name else 1)


def test_attributes_in_slots_cannot_be_watched():
    settings, x = Slotted(2.0), image()

    def function(x, settings):
        return CONV(x) * settings.loss

    fast = convjit.compile(function)
    with pytest.warns(convjit.FallbackWarning, match="'settings' is of Slotted, whose attributes are in __slots__"):
        assert_close(fast(x, settings), function(x, settings))
    settings.loss = 3.0
    assert_close(fast(x, settings), function(x, settings))


def test_a_data_class_of_settings_is_an_argument():
    config, x = Config(), image()

    def function(x, config):
        return CONV(x) * config.width

    fast = fast_of(function)
    for width in (4, 5):
        config.width = width
        for name in ("a", "b"):
            config.name = name
            assert_close(fast(x, config), function(x, config))
    assert captures(fast) == 2


def test_what_a_run_writes_and_does_not_read_is_written():
    class Keeping(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.notes = Plain(None)

        def __call__(self, x):
            y = self.conv(x)
            self.notes.largest = y.max()
            return y

    net, x = Keeping(), image()
    fast = fast_of(net)
    for number in range(4):
        y = fast(x * number)
        assert_close(net.notes.largest, y.max())
    assert captures(fast) == 1


def test_a_quick_call_stays_quick_while_other_attributes_change():
    net, x = Net(), image()
    fast = fast_of(net)
    for number in range(6):
        net.unread = number
        mx.eval(fast(x))
    assert fast._quick is not None
    net.unread = 9
    assert fast._quick((x,)) is not None
    net.factor = 3.0
    assert fast._quick((x,)) is None
    assert_close(fast(x), net(x))


@runtime_checkable
class IsOn(Protocol):
    on: Any


def test_a_protocol_looks_for_attributes():
    (owner, function), x = function_of(Plain, lambda value: 2.0 if isinstance(value, IsOn) else 1.0), image()
    fast = fast_of(function)
    assert_close(fast(x), function(x))
    owner.on = None
    assert_close(fast(x), function(x))


@pytest.mark.parametrize("kind", [Net, Holding, Plain])
def test_what_a_run_writes_counts_though_it_is_there_already(kind):
    def read(value):
        value.done, value.temporary = True, 1
        del value.temporary
        return value.factor

    (owner, function), x = function_of(kind, read), image()
    owner.done = True
    fast = convjit.compile(function, fallback="quiet")
    for _ in range(4):
        fast(x)
        assert owner.done and not hasattr(owner, "temporary")
        owner.done, owner.temporary = False, 2


@pytest.mark.parametrize("differentiated", [False, True])
def test_an_array_is_written_though_it_is_there_already(differentiated):
    net, array, x = Net(), mx.array(2.0), image()
    owner = Plain(None)
    owner.last = array

    def function(x):
        owner.last = array
        return net(x) * array

    fast = fast_of(function)
    for _ in range(4):
        mx.eval(mx.grad(lambda x: fast(x).sum())(x) if differentiated else fast(x))
        assert owner.last.item() == 2.0
        owner.last = None


@pytest.mark.parametrize(
    "read", [lambda table: table["a"], lambda table: float(len(table)), lambda table: table.get("b", 1.0)]
)
def test_attributes_that_are_a_dict_of_the_users_too_count_altogether(read):
    owner, x = Plain(None), image()
    table = vars(owner)
    owner.a = 2.0

    def function(x):
        return CONV(x) * read(table) * owner.factor

    fast = fast_of(function)
    for number in range(4):
        owner.a = float(number)
        setattr(owner, f"new{number}", number)
        assert_close(fast(x), function(x))
        owner.b = float(number)
        assert_close(fast(x), function(x))


def test_a_message_for_another_dict_of_arrays():
    net, x = Holding(None), image()
    net.ema = {"a": [mx.ones(2)]}

    def function(x):
        y = CONV(x)
        net.ema = {"a": [net.ema["a"][0] + y.sum()]}
        return y

    fast = convjit.compile(function)
    fast(x)
    with pytest.warns(
        convjit.FallbackWarning, match="it puts another dict of arrays into 'net.ema'; put the arrays into"
    ):
        fast(x)
