"""Linear layers and other products with a matrix: on the CPU backend kernels of ours, elsewhere MLX's."""

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from checks import assert_close, assert_gradients, fast_of, image, num_kernels, twins
from mlx.utils import tree_flatten

import convjit
from convjit.execution import entry

SHAPES = [(1, 7), (5, 7), (2, 3, 7), (1, 1, 7), (2, 3, 4, 7), (1, 2, 3, 4, 7), (2, 1, 2, 1, 2, 7)]


def stretches(fast):
    return convjit.inspect.ir(fast).split("@forward")[1].count("conv.stretch")


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_linear_layers_of_any_rank(shape, bias):
    layer, x = nn.Linear(7, 5, bias=bias), image(*shape)
    fast = fast_of(layer)
    assert_close(fast(x), layer(x))
    assert num_kernels(fast) == 1


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16], ids=str)
def test_half_types(dtype):
    layer, x = nn.Linear(64, 33), image(9, 64).astype(dtype)
    layer.set_dtype(dtype)
    exact = np.array(x.astype(mx.float32), np.float64) @ np.array(layer.weight.astype(mx.float32), np.float64).T
    exact += np.array(layer.bias.astype(mx.float32), np.float64)
    assert_close(
        fast_of(layer)(x), mx.array(exact.astype(np.float32)).astype(dtype), 2**-7 if dtype == mx.bfloat16 else 2**-10
    )


def test_long_sums_are_exact():
    x, w = image(4, 4099), image(17, 4099, seed=2)
    exact = np.array(x, np.float64) @ np.array(w, np.float64).T
    y = fast_of(lambda x, w: x @ w.T)(x, w)
    assert np.abs(np.array(y) - exact).max() <= 3e-6 * np.abs(exact).max()


def test_what_is_not_finite_stays_in_its_row():
    layer, x = nn.Linear(40, 6), image(4, 40)
    x[1, 3], x[2, 5] = mx.inf, mx.nan
    got, want = np.array(fast_of(layer)(x)), np.array(layer(x))
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_the_epilogue_is_fused():
    """ConvNeXt's block behind its norm: GELU, a scale for each channel, the residual."""
    up, down, gamma, x = nn.Linear(16, 64), nn.Linear(64, 16), image(16), image(1, 6, 5, 16)

    def block(x):
        return x + gamma * down(nn.gelu(up(x)))

    fast = fast_of(block)
    assert_close(fast(x), block(x))
    rows = convjit.inspect.explain(fast).rows
    assert [row.fused for row in rows] == ["Add Divide Erf Add Multiply Divide", "Add Add"]  # gamma is folded
    assert stretches(fast) == 1


def test_a_network_is_one_stretch():
    net, x = nn.Sequential(nn.Conv2d(3, 8, 3), nn.relu, lambda y: y.mean((1, 2)), nn.Linear(8, 5)), image()
    fast = fast_of(net)
    assert_close(fast(x), net(x))
    assert stretches(fast) == 1 and num_kernels(fast) == 2


@pytest.mark.parametrize(
    "function",
    [
        lambda x, w: x @ w,
        lambda x, w: x @ (w * 2),
        lambda x, w: (w.T @ x.T).T,
        lambda x, w: mx.addmm(x[:, :1] + mx.zeros((6, 4)), x, w),
        lambda x, w: mx.addmm(mx.ones((6, 4)), x, w, alpha=0.5, beta=2.0),
        lambda x, w: mx.addmm(x[:, :4], x, w),
        lambda x, w: mx.tensordot(x.reshape(2, 3, 5), w, axes=1),
        lambda x, w: mx.einsum("mk,kn->nm", x, w),
        lambda x, w: x @ w @ w.T @ w,
        lambda x, w: (x @ w).reshape(3, 8),
        lambda x, w: (x.reshape(2, 3, 5) @ w).reshape(6, 4) + (x.reshape(2, 3, 5) @ w)[0, 0],
        lambda x, w: mx.concatenate([x[:, :5] @ w[:5], x[:, :5] @ w[:5]], axis=-1),
        lambda x, w: mx.pad(x.reshape(2, 3, 5), [(0, 0), (1, 2), (0, 0)]) @ w,
        lambda x, w: x.T.reshape(5, 2, 3).transpose(1, 2, 0) @ w,
        lambda x, w: x[0] @ w,
        lambda x, w: x @ w[:, 0],
        lambda x, w: mx.conv1d(x[None], (x @ w)[None, :3, :1] + mx.zeros((2, 3, 5))),
    ],
)
def test_products_of_all_kinds(function):
    x, w = image(6, 5), image(5, 4, seed=2)
    assert_close(convjit.compile(function, fallback="quiet")(x, w), function(x, w))


def test_parts_of_an_input_are_not_merged_into_groups():
    a, b, x = nn.Linear(4, 3, bias=False), nn.Linear(4, 3, bias=False), image(5, 8)

    def function(x):
        left, right = mx.split(x, 2, axis=-1)
        return mx.concatenate([a(left), b(right)], axis=-1)

    assert_close(fast_of(function)(x), function(x))


@pytest.mark.parametrize("shape", [(6, 5), (2, 3, 5), (2, 3, 4, 5)], ids=str)
def test_gradients(shape):
    layer, x = nn.Linear(5, 4), image(*shape)

    def loss(parameters, x):
        layer.update(parameters)
        return nn.gelu(layer(x)).square().sum()

    def gradients(parameters, x):
        return mx.grad(loss, argnums=(0, 1))(parameters, x)

    parameters = layer.trainable_parameters()
    want = gradients(parameters, x)
    fast = fast_of(gradients)
    assert_gradients(fast(parameters, x), want)
    assert num_kernels(fast) == 3  # the layer, its gradients by weight and by input
    layer.update(parameters)
    through = mx.grad(lambda x: convjit.compile(layer)(x).square().sum())
    assert_gradients(through(x), mx.grad(lambda x: layer(x).square().sum())(x))


class Mixer(nn.Module):
    """A convolution, and linear layers on its pixels and behind them."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.up, self.down, self.head = nn.Linear(8, 16), nn.Linear(16, 8), nn.Linear(8, 3)
        mx.eval(self.parameters())

    def __call__(self, x):
        y = self.conv(x)
        return self.head((y + self.down(nn.gelu(self.up(y)))).mean((1, 2)))


def test_train_steps():
    x, classes = image(4, 6, 6, 3), mx.array([0, 2, 1, 1])
    ours, theirs = twins(Mixer)

    def step_of(model):
        optimizer = optim.Adam(1e-3)
        loss_and_gradients = nn.value_and_grad(model, lambda x: nn.losses.cross_entropy(model(x), classes).sum())

        def step(x):
            loss, gradients = loss_and_gradients(x)
            optimizer.update(model, gradients)
            return loss

        return step

    fast, plain = fast_of(step_of(ours)), step_of(theirs)
    for _ in range(4):
        assert_close(fast(x), plain(x), 1e-4)
    for (name, a), (_, b) in zip(tree_flatten(ours.parameters()), tree_flatten(theirs.parameters()), strict=True):
        assert_close({name: a}, {name: b}, 1e-4)
    names = [row.layer for row in convjit.inspect.explain(fast).rows if row.layer.endswith(".grad")]
    assert sorted(name.split(".")[-3] for name in names) == ["conv", "down", "head", "up"]


@pytest.mark.parametrize("pipeline", [None, f"{convjit.passes.OPTIMIZE},cse"])
def test_other_backends_leave_them_to_mlx(pipeline):
    net, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 5)), image()
    fast = fast_of(net, backend="simulator", pipeline=pipeline)
    assert_close(fast(x), net(x))
    assert [row.is_linear for row in convjit.inspect.explain(fast).rows] == [False]


def test_a_kernel_that_is_refused_stays_what_mlx_traced(monkeypatch):
    net, x = Mixer(), image()
    schedule = entry.registry.get("cpu").__class__.schedule

    def refuse(self, kernel):
        return "it is refused here" if kernel.in_words().startswith("1x1x8 -> 1x3") else schedule(self, kernel)

    monkeypatch.setattr(entry.registry.get("cpu").__class__, "schedule", refuse)
    fast = convjit.compile(net, fallback="quiet")
    assert_close(fast(x), net(x))
    *_, head = convjit.inspect.explain(fast).rows
    assert (head.layer, head.convolution, head.kernel, head.note) == (
        *("head", "1x8 -> 3, linear", "plain MLX"),
        "it is refused here",
    )
    assert "3 of 4" not in str(convjit.inspect.explain(fast)) and "2 of 3 linear layers" in str(
        convjit.inspect.explain(fast)
    )


@pytest.mark.parametrize(
    ("q", "k"),
    [
        ((2, 3, 40, 64), (2, 3, 48, 64)),
        ((5, 64, 33), (5, 70, 33)),
        ((1, 1, 200, 40), (1, 1, 33, 40)),
        ((1, 2, 4, 500), (1, 2, 300, 500)),
        ((3, 400, 300), (3, 1, 300)),
        ((16, 8, 8), (16, 8, 8)),
        ((2, 5, 20), (2, 6, 20)),
    ],
    ids=str,
)
def test_products_of_several_matrices(q, k):
    q, k = image(*q), image(*k, seed=2)

    def transposed(q, k):
        return q @ k.swapaxes(-1, -2)

    fast = fast_of(transposed)
    assert_close(fast(q, k), transposed(q, k))
    assert num_kernels(fast) == 1
    k = k.swapaxes(-1, -2) + 0

    def plain(q, k):
        return mx.maximum(q @ k * 0.5 + 1, 0)

    assert_close(fast_of(plain)(q, k), plain(q, k))


@pytest.mark.parametrize("batch", [(0,), (2, 0)], ids=str)
def test_no_matrices_at_all(batch):
    conv, a, b = nn.Conv2d(3, 4, 3), mx.zeros((*batch, 100, 100)), mx.zeros((*batch, 100, 100))
    mx.eval(conv.parameters())
    assert fast_of(lambda x, a, b: (conv(x), a @ b))(image(), a, b)[1].shape == a.shape


def test_few_rows_and_a_matrix_that_changes_stay():
    """Packing it would take longer than the product; that of a parameter is packed once."""
    layer, x, w = nn.Linear(8, 5), image(3, 8), image(6, 5, seed=2)
    mx.eval(layer.parameters())
    fast = fast_of(lambda x, w: layer(x) @ w.T)
    assert_close(fast(x, w), layer(x) @ w.T)
    assert num_kernels(fast) == 1


def test_many_tiny_products_stay():
    a, b = image(50, 3, 3), image(50, 3, 3, seed=2)
    fast = convjit.compile(lambda x, a, b: (CONV(x), a @ b), fallback="error")
    CONV = nn.Conv2d(3, 4, 3)
    assert_close(fast(image(), a, b)[1], a @ b)
    assert num_kernels(fast) == 1


def test_attention_and_its_gradients():
    """Heads are a transpose of what a projection gives; keys and values are weights that change in every call."""
    attention, x = nn.MultiHeadAttention(64, 2), image(2, 80, 64)
    mx.eval(attention.parameters())

    def loss(attention, x):
        return attention(x, x, x).square().mean()

    fast = fast_of(attention)
    for scale in (1.0, 0.5):
        assert_close(fast(x * scale, x, x), attention(x * scale, x, x))
    assert num_kernels(fast) == 6
    gradients = nn.value_and_grad(attention, loss)
    faster = fast_of(lambda x: gradients(attention, x))
    assert_close(faster(x), gradients(attention, x), 1e-4)
