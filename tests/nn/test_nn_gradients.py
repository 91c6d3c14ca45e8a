"""Gradients of the layers: exact in float64, since a convolution is linear in its input and in its weight."""

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from definitions import define, weight_and_input
from mlx.utils import tree_flatten

import convjit
from convjit.nn import Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d

CASES = {
    "causal": (lambda: Conv1d(2, 3, 3, 2, "causal"), define((2, 0), stride=2), (1, 6, 2)),
    "four sides": (lambda: Conv2d(2, 2, 2, padding=(0, 1, 2, 0)), define((0, 1), (2, 0)), (1, 3, 2, 2)),
    "2d, groups": (
        lambda: Conv2d(4, 4, 3, 2, (1, 0, 0, 1), groups=2),
        define((1, 0), (0, 1), stride=2, groups=2),
        (1, 5, 4, 4),
    ),
    "transposed 2d, groups": (
        lambda: ConvTranspose2d(4, 4, 3, 2, (1, 0, 0, 1), groups=2),
        define((1, 0), (0, 1), stride=2, groups=2, transposed=True),
        (1, 2, 3, 4),
    ),
    "reflect": (
        lambda: Conv2d(2, 2, 2, padding=(1, 2, 0, 1), padding_mode="reflect"),
        define((1, 2), (0, 1), mode="reflect"),
        (1, 3, 3, 2),
    ),
    "replicate": (
        lambda: Conv1d(2, 3, 3, padding=(3, 1), padding_mode="replicate"),
        define((3, 1), mode="replicate"),
        (1, 4, 2),
    ),
    "circular": (
        lambda: Conv1d(2, 3, 3, padding=(3, 1), padding_mode="circular"),
        define((3, 1), mode="circular"),
        (1, 4, 2),
    ),
    "3d, groups": (
        lambda: Conv3d(4, 2, 2, groups=2, padding=(1, 0, 0)),
        define((1, 1), (0, 0), (0, 0), groups=2),
        (1, 2, 2, 3, 4),
    ),
    "transposed, cut": (
        lambda: ConvTranspose1d(2, 3, 2, 2, 3),
        define((3, 3), stride=2, transposed=True),
        (1, 6, 2),
    ),
    "transposed, output padding": (
        lambda: ConvTranspose2d(2, 3, (3, 1), (2, 3), output_padding=(1, 2)),
        define((0, -1), (0, -2), stride=(2, 3), transposed=True),
        (1, 3, 2, 2),
    ),
    "transposed 3d, groups": (
        lambda: ConvTranspose3d(4, 2, 2, (1, 2, 1), groups=2),
        define((0, 0), (0, 0), (0, 0), stride=(1, 2, 1), groups=2, transposed=True),
        (1, 2, 2, 2, 4),
    ),
}


def basis(shape):
    """All arrays of `shape` that are 1 in one place and 0 elsewhere."""
    count = int(np.prod(shape))
    return np.eye(count).reshape(count, *shape)


@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "compiled"])
@pytest.mark.parametrize("seed, name", list(enumerate(CASES)))
def test_gradients(name, seed, compiled):
    make, definition, shape = CASES[name]
    layer = make()
    w, x = weight_and_input(layer, shape, seed)
    cotangent = np.random.default_rng(seed + 100).standard_normal(definition(x, w).shape)
    call = convjit.compile(layer) if compiled else layer

    def loss(parameters, x):
        layer.update(parameters)
        return (call(x) * mx.array(cotangent.astype(np.float32))).sum()

    by_parameters, by_x = mx.grad(loss, argnums=(0, 1))(layer.parameters(), mx.array(x))
    expected = {
        "x": [np.sum(cotangent * definition(unit[None], w)) for unit in basis(shape[1:])],
        "weight": [np.sum(cotangent * definition(x, unit)) for unit in basis(w.shape)],
        "bias": cotangent.sum(axis=tuple(range(len(shape) - 1))),
    }
    for what, actual in {"x": by_x, **by_parameters}.items():
        np.testing.assert_allclose(
            np.array(actual).ravel(), np.ravel(expected[what]), rtol=1e-4, atol=1e-4, err_msg=f"{what}, seed {seed}"
        )


def test_channels_first():
    """`nn.value_and_grad` sees all parameters, and a channels-first layer's gradients are in its own layout."""
    model = nn.Sequential(Conv2d(3, 4, 3, padding="same", padding_mode="reflect", permute=True), nn.ReLU())
    twin = nn.Sequential(Conv2d(3, 4, 3, padding="same", padding_mode="reflect"), nn.ReLU())
    twin.layers[0].weight = model.layers[0].weight.transpose(0, 2, 3, 1)
    x = mx.random.normal((2, 5, 5, 3), key=mx.random.key(1))
    value, gradients = nn.value_and_grad(model, lambda x: mx.square(model(x)).sum())(x.transpose(0, 3, 1, 2))
    expected_value, expected = nn.value_and_grad(twin, lambda x: mx.square(twin(x)).sum())(x)
    assert mx.allclose(value, expected_value, rtol=1e-5)
    (actual,), (expected,) = gradients["layers"][:1], expected["layers"][:1]
    assert mx.allclose(actual["weight"].transpose(0, 2, 3, 1), expected["weight"], rtol=1e-4, atol=1e-4)
    assert mx.allclose(actual["bias"], expected["bias"], rtol=1e-4, atol=1e-4)


def trained(compile_step):
    """Losses and parameters of three steps, with the model as an argument of the loss, as in MLX's own examples."""
    mx.random.seed(12)
    model = nn.Sequential(
        Conv2d(3, 4, 3, padding="same", padding_mode="reflect"),
        nn.ReLU(),
        ConvTranspose2d(4, 4, 4, 2, "same", groups=2),
        nn.ReLU(),
        Conv2d(4, 2, 3, padding=(0, 1, 0, 1), stride=2),
    )
    optimizer = optim.SGD(0.05, momentum=0.9)
    x = mx.random.normal((2, 6, 6, 3))

    def step(x):
        loss, gradients = nn.value_and_grad(model, lambda model, x: mx.square(model(x) - 1).mean())(model, x)
        optimizer.update(model, gradients)
        return loss

    step = compile_step(step)
    return [step(x).item() for _ in range(3)], dict(tree_flatten(model.parameters()))


def test_whole_steps_are_compiled():
    losses, parameters = trained(lambda step: convjit.compile(step, fallback="error"))
    expected_losses, expected = trained(lambda step: step)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    for name, value in expected.items():
        assert mx.allclose(parameters[name], value, rtol=1e-4, atol=1e-5), name
