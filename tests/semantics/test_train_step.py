"""Whole train steps as one program: forward, backward, optimizer; all state as after the steps of plain MLX."""

import functools

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import pytest
from checks import ConvNorm, Tiny, assert_close, assert_different, fast_of, image, num_kernels, reasons, twins
from mlx.utils import tree_flatten

import convjit
from convjit.execution import entry

STEPS = 4
CLASSES = mx.array([0, 2, 1])


def loss_of(model, x, classes):
    return nn.losses.cross_entropy(model(x), classes, reduction="mean")


def closed_over(model, optimizer, wrap):
    @wrap
    def step(x, classes):
        loss, gradients = nn.value_and_grad(model, functools.partial(loss_of, model))(x, classes)
        optimizer.update(model, gradients)
        return loss

    return step


def with_state(model, optimizer, wrap):
    state = [model.state, optimizer.state, mx.random.state]
    return closed_over(model, optimizer, functools.partial(wrap, inputs=state, outputs=state))


def prebuilt(model, optimizer, wrap):
    def loss(x, classes):
        return loss_of(model, x, classes)

    value_and_grad = nn.value_and_grad(model, loss)

    def step(x, classes):
        loss, gradients = value_and_grad(x, classes)
        optimizer.update(model, gradients)
        return loss

    return wrap(step)


def arguments(model, optimizer, wrap):
    def step(model, optimizer, x, classes):
        loss, gradients = nn.value_and_grad(model, lambda x: loss_of(model, x, classes))(x)
        optimizer.update(model, gradients)
        return loss

    compiled = wrap(step)
    return lambda x, classes: compiled(model, optimizer, x, classes)


class Trainer:
    def __init__(self, model, optimizer):
        self.model, self.optimizer = model, optimizer
        self.gradient = nn.value_and_grad(model, self.loss)

    def loss(self, x, classes):
        return loss_of(self.model, x, classes)

    def step(self, x, classes):
        loss, gradients = self.gradient(x, classes)
        gradients, _ = optim.clip_grad_norm(gradients, 1.0)
        self.optimizer.update(self.model, gradients)
        return loss


def method(model, optimizer, wrap):
    return wrap(Trainer(model, optimizer).step)


FORMS = {f.__name__: f for f in (closed_over, with_state, prebuilt, arguments, method)}
OPTIMIZERS = {
    "momentum": lambda: optim.SGD(0.1, momentum=0.9, nesterov=True),
    "adam": lambda: optim.Adam(0.01, bias_correction=True),
    "scheduled": lambda: optim.AdamW(optim.cosine_decay(0.01, 5)),
}


def plainly(function, inputs=None, outputs=None):
    return function


def batches(size=3):
    return [image(size, 7, 7, 3, seed=seed) for seed in range(STEPS)]


def train(step, model, optimizer, batches):
    """The losses and the state afterwards."""
    mx.random.seed(9)
    losses = [step(x, CLASSES[: len(x)]) for x in batches]
    mx.eval(losses, model.state, optimizer.state)
    return losses, dict(tree_flatten(model.parameters())), dict(tree_flatten(optimizer.state)), mx.random.uniform()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_whole_step(form, optimizer):
    model, twin = twins(Tiny)
    ours, theirs = OPTIMIZERS[optimizer](), OPTIMIZERS[optimizer]()
    compiled = []

    def wrap(function, **options):
        compiled.append(fast_of(function, **options))
        return compiled[0]

    actual = train(FORMS[form](model, ours, wrap), model, ours, batches())
    expected = train(FORMS[form](twin, theirs, plainly), twin, theirs, batches())
    assert_close(actual, expected, rtol=1e-4)
    assert_different(actual[1]["layers.1.running_mean"], mx.zeros(4))
    assert num_kernels(compiled[0]) >= 3  # two forward, one gradient of an input; and those of the weights


RARER_OPTIMIZERS = {
    "adafactor": optim.Adafactor,
    "lion": lambda: optim.Lion(0.01),
    "muon": lambda: optim.Muon(0.01),
    "two": lambda: optim.MultiOptimizer([optim.Adagrad(0.1), optim.AdamW(0.01)], [lambda path, _: "layers" in path]),
}


@pytest.mark.parametrize("name", RARER_OPTIMIZERS)
def test_rarer_optimizers(name):
    (model, twin), make = twins(Tiny), RARER_OPTIMIZERS[name]
    ours, theirs = make(), make()
    step = closed_over(model, ours, fast_of)
    actual = train(step, model, ours, batches())
    assert_close(actual, train(closed_over(twin, theirs, plainly), twin, theirs, batches()), rtol=1e-4)
    assert num_kernels(step) >= 3


def test_half_precision():
    model, twin = twins(Tiny)
    model.set_dtype(mx.bfloat16), twin.set_dtype(mx.bfloat16)
    ours, theirs = (optim.SGD(0.05, momentum=0.9) for _ in range(2))
    step, images = closed_over(model, ours, fast_of), [x.astype(mx.bfloat16) for x in batches()]
    actual = train(step, model, ours, images)
    assert_close(actual, train(closed_over(twin, theirs, plainly), twin, theirs, images), rtol=3e-2)
    assert num_kernels(step) >= 3


class FromTheFirstGradient(optim.Optimizer):
    """An optimizer whose state depends on the values that it is made for."""

    def init_single(self, parameter, state):
        state["first"] = parameter * 2

    def apply_single(self, gradient, parameter, state):
        state["first"] = state["first"] + gradient
        return parameter - 0.1 * state["first"]


@pytest.mark.parametrize("initialised", [False, True])
@pytest.mark.parametrize(
    "make",
    [*OPTIMIZERS.values(), RARER_OPTIMIZERS["two"], FromTheFirstGradient],
    ids=[*OPTIMIZERS, "two", "from the first gradient"],
)
def test_the_first_step_is_compiled_and_makes_the_optimizers_state(make, initialised):
    model, twin = twins(Tiny)
    ours, theirs, first = make(), make(), batches()[:1]
    if initialised:
        ours.init(model.trainable_parameters()), theirs.init(twin.trainable_parameters())
    step = closed_over(model, ours, fast_of)
    actual = train(step, model, ours, first)
    assert_close(actual, train(closed_over(twin, theirs, plainly), twin, theirs, first), rtol=1e-4)
    assert num_kernels(step) >= 3


def test_one_program_is_compiled_for_the_first_step_and_the_others(monkeypatch):
    model, optimizer, compiled = Tiny(), optim.Adam(0.01), []
    monkeypatch.setattr(entry, "lower", lambda *a, lower=entry.lower: compiled.append(a) or lower(*a))
    train(closed_over(model, optimizer, fast_of), model, optimizer, batches())
    assert len(compiled) == 1


def test_a_first_step_that_changes_more_than_optimizers_runs_plain():
    class Marked(Trainer):
        def step(self, x, classes):
            self.has_begun = True
            return super().step(x, classes)

    (model, twin), (ours, theirs) = twins(Tiny), (optim.Adam(0.01) for _ in range(2))
    fast, plain = fast_of(Marked(model, ours).step), Marked(twin, theirs).step
    assert_close(train(fast, model, ours, batches()[:1]), train(plain, twin, theirs, batches()[:1]), rtol=1e-4)
    with pytest.raises(ValueError, match="has not compiled anything yet"):
        convjit.inspect.explain(fast)
    assert_close(train(fast, model, ours, batches()), train(plain, twin, theirs, batches()), rtol=1e-4)
    assert num_kernels(fast) >= 3


def test_an_optimizer_that_is_reset_and_the_last_smaller_batch():
    model, twin = twins(Tiny)
    ours, theirs = (optim.SGD(0.1, momentum=0.9) for _ in range(2))
    fast, plain = closed_over(model, ours, fast_of), closed_over(twin, theirs, plainly)
    for _ in range(2):
        sizes = [*batches()[:2], image(2, 7, 7, 3)]
        assert_close(train(fast, model, ours, sizes), train(plain, twin, theirs, sizes), rtol=1e-4)
        for optimizer in (ours, theirs):
            optimizer.state = {"step": mx.array(0, mx.uint64), "learning_rate": mx.array(0.1)}


def test_what_the_user_changes_between_steps():
    model, twin = twins(Tiny)
    ours, theirs = (optim.SGD(0.1, momentum=0.9) for _ in range(2))
    fast, plain = closed_over(model, ours, fast_of), closed_over(twin, theirs, plainly)
    for change in (
        lambda model, optimizer: None,
        lambda model, optimizer: setattr(optimizer, "learning_rate", 0.01),
        lambda model, optimizer: model.layers[0].freeze(),
        lambda model, optimizer: model.layers[2].update({"weight": model.layers[2].weight * 0.5}),
        lambda model, optimizer: model.layers[0].unfreeze(),
        lambda model, optimizer: model.layers[1].eval(),
    ):
        change(model, ours), change(twin, theirs)
        actual, expected = (train(*a, batches()[:2]) for a in ((fast, model, ours), (plain, twin, theirs)))
        assert_close(actual, expected, rtol=1e-4)
        assert not reasons(fast)


def test_training_and_inference_take_turns():
    """The inference program prepares weights, the step replaces them."""
    model, twin = twins(Tiny)
    ours, theirs = (optim.SGD(0.1) for _ in range(2))
    step, plain_step = closed_over(model, ours, fast_of), closed_over(twin, theirs, plainly)
    predict, x = fast_of(model), batches()[0]
    for _ in range(3):
        mx.random.seed(2), step(x, CLASSES)
        mx.random.seed(2), plain_step(x, CLASSES)
        model.eval(), twin.eval()
        assert_close(predict(x), twin(x), rtol=1e-4)
        model.train(), twin.train()


def test_value_and_grad_alone():
    (model, twin), x = twins(ConvNorm), image()
    fast = fast_of(nn.value_and_grad(model, lambda x: model(x).square().mean()))
    plain = nn.value_and_grad(twin, lambda x: twin(x).square().mean())
    for _ in range(3):
        actual, expected = fast(x), plain(x)
        assert_close(actual, expected, rtol=1e-4)
        optim.SGD(0.1).update(model, actual[1]), optim.SGD(0.1).update(twin, expected[1])
        assert_close(model.norm.running_var, twin.norm.running_var)


def test_a_transformation_of_mlx_itself_made_outside_runs_plain():
    """What mx.value_and_grad keeps inside cannot be exchanged for a copy."""
    (model, twin), x = twins(ConvNorm), image()

    def step(model):
        gradient = mx.value_and_grad(lambda x: model(x).square().mean())
        return lambda x: gradient(x)

    fast = convjit.compile(step(model), fallback="quiet")
    for _ in range(2):
        assert_close(fast(x), step(twin)(x))
        assert_close(model.norm.running_var, twin.norm.running_var)
    assert "make it inside the compiled function" in reasons(fast)
