"""Convolutions of nothing: sums without a term are zeros, compiled too, and no reason to fall back."""

import mlx.core as mx
import mlx.nn as nn
import pytest
from checks import assert_close, fast_of, image

import convjit

FORMS = {
    "batch 0": ((0, 5, 5, 4), (3, 3, 3, 4), mx.conv2d),
    "height 0": ((2, 0, 5, 4), (3, 1, 3, 4), lambda x, w: mx.conv2d(x, w, padding=(1, 0))),
    "groups": ((1, 0, 5, 4), (4, 3, 3, 1), lambda x, w: mx.conv2d(x, w, padding=2, groups=4)),
    "dilated": ((0, 7, 7, 4), (4, 3, 3, 4), lambda x, w: mx.conv2d(x, w, dilation=2)),
    "transposed": ((0, 5, 5, 4), (3, 3, 3, 4), lambda x, w: mx.conv_transpose2d(x, w, stride=2)),
    "transposed, height 0": ((1, 0, 5, 4), (3, 3, 3, 4), mx.conv_transpose2d),
    "cropped": ((1, 1, 4, 3), (2, 1, 1, 3), lambda x, w: mx.conv_general(x, w, padding=((2, 0), (-1, 0)))),
    "1D": ((2, 0, 4), (3, 3, 4), lambda x, w: mx.conv1d(x, w, padding=2)),
    "3D": ((1, 0, 3, 3, 4), (5, 3, 3, 3, 4), lambda x, w: mx.conv3d(x, w, padding=2)),
}


def rows(fast):
    return {(row.kernel, row.note) for row in convjit.inspect.explain(fast).rows}


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
@pytest.mark.parametrize("name", FORMS)
def test_results_are_zeros_and_what_is_added(name, dtype):
    x, w, conv = FORMS[name]
    x, w = image(*x).astype(dtype), image(*w).astype(dtype)
    bias = image(w.shape[0]).astype(dtype)
    fast = fast_of(lambda x, w, b: conv(x, w) + b)
    for _ in range(3):
        assert_close(fast(x, w, bias), mx.broadcast_to(bias, conv(x, w).shape))
    assert rows(fast) == {("zeros", "its input is empty")}


@pytest.mark.parametrize("argnums", [0, 1])
@pytest.mark.parametrize("name", ["height 0", "dilated", "transposed", "cropped"])
def test_gradients_are_zeros(name, argnums):
    """MLX ends the process where it computes some of these. It raises while it traces the others."""
    x, w, conv = FORMS[name]
    x, w = image(*x), image(*w)

    def loss(x, w):
        return mx.sum(mx.square(conv(x, w) + 1))

    inside = fast_of(lambda x, w: mx.grad(loss, argnums)(x, w))
    fast = fast_of(loss)
    for gradient in (inside(x, w), mx.grad(fast, argnums)(x, w)):
        assert_close(gradient, mx.zeros((x, w)[argnums].shape))


def test_a_weight_that_meets_padding_alone():
    x, w = image(3, 2, 1, 5), image(8, 2, 1, 5)

    def loss(x, w):
        return mx.sum(mx.square(mx.conv2d(x, w, stride=(2, 3), padding=1, dilation=(1, 2)) + 1))

    fast = fast_of(lambda x, w: mx.grad(loss, argnums=(0, 1))(x, w))
    assert_close(fast(x, w), (mx.zeros(x.shape), mx.zeros(w.shape)))


def test_beside_others():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm(4), nn.ReLU(), nn.Conv2d(4, 5, (2, 1), padding=(2, 0)))
    model.eval()
    fast = fast_of(lambda x: (model(x), model.layers[3](model(x)[:, :0, :, :4])))
    x = image(2, 8, 8, 3)
    assert_close(fast(x), (model(x), mx.broadcast_to(model.layers[3].bias, (2, 3, 6, 5))))
    assert ("zeros", "its input is empty") in rows(fast)
    assert len(rows(fast)) == 3


def test_a_model_whose_batch_becomes_empty():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3))
    fast = fast_of(model)
    for batch in (2, 0, 3, 0):
        x = image(batch, 7, 7, 3)
        assert_close(fast(x), model(x))
