"""Rules 1 and 2, to any order: `jvp` of convolutions, which MLX does not have, and transformations of each other."""

import threading

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from checks import Net, assert_close, assert_gradients, fast_of, image, num_kernels, small_conv
from test_convolutions import definition

FORMS = {  # shapes of the input and of the weight, the convolution
    "1D": ((2, 9, 4), (6, 3, 4), lambda x, w: mx.conv1d(x, w, stride=2, padding=1)),
    "2D, in groups, dilated": ((2, 7, 6, 4), (6, 3, 2, 2), lambda x, w: mx.conv2d(x, w, (2, 1), (1, 2), (1, 2), 2)),
    "2D, depthwise": ((1, 6, 6, 4), (4, 3, 3, 1), lambda x, w: mx.conv2d(x, w, padding=1, groups=4)),
    "3D": ((1, 4, 5, 4, 2), (3, 2, 2, 2, 2), lambda x, w: mx.conv3d(x, w, stride=2, padding=1)),
    "transposed": ((1, 4, 5, 3), (4, 3, 3, 3), lambda x, w: mx.conv_transpose2d(x, w, 2, 1, output_padding=1)),
    "general": (
        (2, 8, 3),
        (4, 3, 3),
        lambda x, w: mx.conv_general(x, w, 1, ([2], [0]), 2, input_dilation=2, flip=True),
    ),
    "of NumPy's kind": ((9,), (4,), lambda x, w: mx.convolve(x, w)),
}


def operands(name, seed=1):
    return [image(*shape, seed=seed + n) for n, shape in enumerate(FORMS[name][:2])]


def activated(conv):
    """Not linear any more, and smooth."""
    return lambda x, w: mx.sin(conv(x, w))


@pytest.mark.parametrize("name", FORMS)
def test_jvp_of_every_form(name):
    conv, (x, w), (dx, dw) = FORMS[name][2], operands(name), operands(name, seed=7)
    fast = fast_of(conv)
    assert_close(fast(x, w), conv(x, w))
    for function in (fast, fast_of(conv)):
        (y,), (dy,) = mx.jvp(function, [x, w], [dx, dw])
        assert_close(y, conv(x, w))
        assert_close(dy, conv(dx, w) + conv(x, dw))
    assert_close(mx.jvp(lambda x: fast(x, w), [x], [dx])[1][0], conv(dx, w))
    assert_close(mx.jvp(lambda w: fast(x, w), [w], [dw])[1][0], conv(x, dw))


def hessian_products(plain, x, w, dx, dw):
    """The Hessian of the sum of `plain`, times (dx, dw), by reverse differentiation alone, which MLX can do."""

    def directional(x, w):
        gradients = mx.grad(lambda x, w: plain(x, w).sum(), argnums=(0, 1))(x, w)
        return sum((g * d).sum() for g, d in zip(gradients, (dx, dw), strict=True))

    return mx.grad(directional, argnums=(0, 1))(x, w)


@pytest.mark.parametrize("name", FORMS)
def test_second_order(name):
    plain, operand, tangent = activated(FORMS[name][2]), operands(name), operands(name, seed=7)
    fast, expected = fast_of(plain), hessian_products(plain, *operand, *tangent)
    assert_gradients(hessian_products(fast, *operand, *tangent), expected)

    def gradient(x, w):
        return mx.grad(lambda x, w: fast(x, w).sum(), argnums=(0, 1))(x, w)

    def slope(x, w):
        return mx.jvp(fast, [x, w], tangent)[1][0].sum()

    assert_close(mx.jvp(gradient, operand, tangent)[1], list(expected))
    assert_close(mx.grad(slope, argnums=(0, 1))(*operand), expected)
    (twice,) = mx.jvp(lambda *a: mx.jvp(fast, list(a), tangent)[1][0].sum(), operand, tangent)[1]
    assert_close(twice, sum((e * d).sum() for e, d in zip(expected, tangent, strict=True)), rtol=1e-4)


@pytest.mark.parametrize("axes", [(1, None), (None, 2), (1, 2)], ids=["input", "weight", "both"])
@pytest.mark.parametrize("name", ["general", "2D, in groups, dilated", "transposed"])
def test_vmap_of_and_under_the_others(name, axes):
    """Against a loop: MLX's own `vmap` over the weight alone mixes up groups."""
    plain = activated(FORMS[name][2])
    fast, size = fast_of(plain), 3

    def stacked(seed):
        return [
            a if axis is None else mx.stack([a, 2 * a, a - 1], axis)
            for a, axis in zip(operands(name, seed), axes, strict=True)
        ]

    def looped(function, *many):
        parts = [a if axis is None else mx.moveaxis(a, axis, 0) for a, axis in zip(many, axes * 2, strict=False)]
        rows = [
            function(*(p if a is None else p[n] for p, a in zip(parts, axes * 2, strict=False))) for n in range(size)
        ]
        return [mx.stack(column) for column in zip(*rows, strict=True)]

    operand, tangent = stacked(1), stacked(7)
    mapped = mx.vmap(fast, axes)
    assert_close(mapped(*operand), looped(lambda *a: [plain(*a)], *operand)[0])

    def gradient(function):
        return mx.grad(lambda x, w: function(x, w).sum(), argnums=(0, 1))

    assert_close(list(mx.vmap(gradient(fast), axes)(*operand)), looped(gradient(plain), *operand))

    def loss(x, w):
        return sum(y.sum() for y in looped(lambda *a: [plain(*a)], x, w))

    assert_close(gradient(mapped)(*operand), mx.grad(loss, argnums=(0, 1))(*operand))

    def product(x, w, dx, dw):
        return mx.jvp(gradient(fast), [x, w], [dx, dw])[1]

    expected = looped(lambda *a: hessian_products(plain, *a), *operand, *tangent)
    assert_close(mx.vmap(product, axes * 2)(*operand, *tangent), expected, rtol=1e-4)
    assert_close(mx.compile(mx.vmap(product, axes * 2))(*operand, *tangent), expected, rtol=1e-4)

    (slopes,) = mx.jvp(mapped, operand, tangent)[1]
    one = mx.vmap(lambda x, w, dx, dw: mx.jvp(fast, [x, w], [dx, dw])[1][0], axes * 2)
    assert_close(slopes, one(*operand, *tangent))


def test_two_vmaps():
    conv = FORMS["2D, in groups, dilated"][2]
    fast, (x, w) = fast_of(conv), operands("2D, in groups, dilated")
    xs, ws = mx.stack([x, 2 * x]), mx.stack([w, w + 1, -w])
    expected = mx.stack([mx.stack([conv(x, w) for w in ws]) for x in xs])
    assert_close(mx.vmap(mx.vmap(fast, (None, 0)), (0, None))(xs, ws), expected)
    assert_close(mx.vmap(mx.vmap(fast, (0, None)), (None, 0))(xs, ws), expected.swapaxes(0, 1))


def test_jvp_of_a_model_against_finite_differences():
    """In float64: conv, sigmoid, conv."""
    first, second = small_conv(), small_conv(seed=5, in_channels=4)
    net, x, dx = nn.Sequential(first, nn.Sigmoid(), second), image(), image(seed=4)

    def exact(x):
        window = ((1, 1), (1, 1), (1, 1), (1, 1), (1, 1), 1, False)
        y = definition(x, first.weight, *window) + np.array(first.bias, np.float64)
        return definition(1 / (1 + np.exp(-y)), second.weight, *window) + np.array(second.bias, np.float64)

    at, along, h = np.array(x, np.float64), np.array(dx, np.float64), 1e-6
    expected = (exact(at + h * along) - exact(at - h * along)) / (2 * h)
    for fast in (fast_of(net), fast_of(net)):
        (dy,) = mx.jvp(fast, [x], [dx])[1]
        np.testing.assert_allclose(np.array(dy), expected, atol=1e-5 * np.abs(expected).max())
        assert_close(fast(x), net(x))


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
def test_jvp_along_the_parameters(warm):
    """The input is no tracer."""
    net, x = Net(), image()
    fast, parameters = fast_of(net), net.trainable_parameters()
    if warm:
        fast(x)
    tangent = image(4, 3, 3, 3, seed=8)

    def loss(function):
        def of(weight):
            net.update({"conv": {"weight": weight}})
            return function(x).square().sum()

        return of

    (y,), (slope,) = mx.jvp(loss(fast), [parameters["conv"]["weight"]], [tangent])
    gradient = mx.grad(loss(net))(parameters["conv"]["weight"])
    net.update(parameters)
    assert_close(y, net(x).square().sum())
    assert_close(slope, (gradient * tangent).sum())
    assert_close(fast(x), net(x))


def test_gradients_of_each_sample():
    """By input, by bias, by the weights of groups; MLX cannot `vmap` its gradient by a dense weight, and says so."""
    conv, xs = nn.Conv2d(4, 4, 3, groups=2), image(3, 1, 6, 6, 4)
    fast, parameters = fast_of(conv), conv.trainable_parameters()

    def of_each(function):
        def loss(parameters, x):
            conv.update(parameters)
            return function(x).square().sum()

        return mx.vmap(mx.grad(loss, argnums=(0, 1)), in_axes=(None, 0))

    actual, expected = of_each(fast)(parameters, xs), of_each(conv)(parameters, xs)
    conv.update(parameters)
    assert_gradients(actual, expected)
    dense = fast_of(lambda x, w: mx.conv2d(x, w).sum())
    with pytest.raises(ValueError, match="Not implemented for AsStrided"):
        mx.vmap(mx.grad(dense, argnums=1), in_axes=(0, None))(xs, image(4, 3, 3, 4))


def test_lower_precision_and_mixed_dtypes():
    x, w = image().astype(mx.bfloat16), image(4, 3, 3, 3) * 0.1
    fast = fast_of(lambda x, w: mx.conv2d(x, w))
    (y,), (dy,) = mx.jvp(fast, [x, w], [x, w])
    assert_close(y, mx.conv2d(x, w))
    assert_close(dy, 2 * mx.conv2d(x, w), rtol=1e-2)
    actual = mx.grad(lambda x, w: fast(x, w).sum(), argnums=(0, 1))(x, w)
    assert_close(actual, mx.grad(lambda x, w: mx.conv2d(x, w).sum(), argnums=(0, 1))(x, w))


def test_mlx_is_as_it_was_afterwards():
    """Also in a thread beside, while another one differentiates."""
    before, x = {name: getattr(mx, name) for name in dir(mx) if name.startswith("conv")}, image()
    fast, inside, done = fast_of(small_conv()), threading.Event(), threading.Event()

    def loss(x):
        y = fast(x).sum()
        inside.set()
        assert done.wait(60)
        return y + fast(x).sum()

    thread = threading.Thread(target=lambda: mx.eval(mx.grad(loss)(x)))
    thread.start()
    try:
        assert inside.wait(60)
        with pytest.raises(ValueError, match="Not implemented for Convolution"):
            mx.jvp(lambda x: mx.conv2d(x, small_conv().weight), [x], [x])
        other = fast_of(small_conv(seed=9))
        assert_close(other(x), small_conv(seed=9)(x))
        assert num_kernels(other) == 1
    finally:
        done.set()
        thread.join()
    assert {name: getattr(mx, name) for name in before} == before


def test_the_users_errors_come_through():
    fast, x = fast_of(small_conv()), image()
    with pytest.raises(ValueError, match="channels"):
        mx.grad(lambda x: fast(x).sum())(image(1, 6, 6, 2))
    assert_close(fast(x), small_conv()(x))
