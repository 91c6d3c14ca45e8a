"""A program depends on the attributes that its function reads, however it reads them, and on no other ones."""

import copy
import inspect
import operator
import threading
import types
import weakref
from collections import ChainMap, deque
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, runtime_checkable

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import pytest
from checks import ConvNorm, assert_close, fast_of, image, parameters

import convjit
from convjit.guards import reads
from convjit.guards.walk import Walk

CONV = nn.Conv2d(3, 4, 3)
LOOK_UP = object.__getattribute__


def captures(fast: Any) -> int:
    return convjit.compiled.compiled_of(fast)._captures


class Trainer:
    """Keeps books beside a model, as people do."""

    def __init__(self):
        self.model = ConvNorm()
        self.optimizer = optim.SGD(0.01, momentum=0.9)
        self.loss_and_gradients = nn.value_and_grad(self.model, self.loss)
        self.step_number, self.best = 0, float("inf")
        self.losses, self.recent, self.by_step = [], deque(maxlen=2), {}
        self.seen = {"images": 0}

    def loss(self, x):
        return (self.model(x) ** 2).mean()

    def step(self, x):
        loss, gradients = self.loss_and_gradients(x)
        self.optimizer.update(self.model, gradients)
        return loss

    def keep_books(self, loss, x):
        self.step_number += 1
        self.best = min(self.best, loss.item())
        self.losses.append(loss)
        self.recent.append(loss)
        self.by_step[self.step_number] = loss
        self.seen["images"] += len(x)
        self.last = loss
        setattr(self, f"new{self.step_number}", loss)


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


class Net(nn.Module):
    scale = 3.0

    def __init__(self, read=lambda net: net.factor):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.factor, self.unread = 2.0, 1.0
        self.read = read

    def __call__(self, x):
        return self.conv(x) * self.read(self)


class Plain:
    """The same without arrays of its own."""

    scale = 3.0

    def __init__(self, read):
        self.factor, self.unread = 2.0, 1.0
        self.read = read

    @property
    def doubled(self):
        return self.factor * 2

    def __getattr__(self, name):
        if name == "renamed":
            return self.factor
        raise AttributeError(name)


class Holding(Plain):
    """The same with an array."""

    def __init__(self, read):
        super().__init__(read)
        self.weight = mx.ones((4,))


def function_of(kind, read):
    """An object, and a function that reads it."""
    owner = kind(read)

    def function(x):
        weight = owner.weight if kind is Holding else 1.0
        return CONV(x) * owner.read(owner) * weight

    return owner, owner if kind is Net else function


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


@dataclass(slots=True)
class Slotted:
    loss: Any


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
