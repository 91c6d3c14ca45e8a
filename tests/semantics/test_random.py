"""Rule 8: what draws random numbers runs as plain MLX, and a capture draws none."""

import mlx.core as mx
import mlx.nn as nn
import pytest
from checks import assert_close, assert_different, fast_of, image, num_kernels, reasons, small_conv

import convjit


class Dropped(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.drop = small_conv(), nn.Dropout(0.5)

    def __call__(self, x):
        return self.drop(nn.relu(self.conv(x)))


RANDOM = {
    "dropout": lambda conv: lambda x: nn.Dropout(0.5)(conv(x)),
    "dropout2d": lambda conv: lambda x: nn.Dropout2d(0.5)(conv(x)),
    "normal": lambda conv: lambda x: conv(x) + mx.random.normal((4,)),
    "uniform": lambda conv: lambda x: conv(x) * mx.random.uniform(shape=(6, 1, 4)),
    "bernoulli": lambda conv: lambda x: mx.where(mx.random.bernoulli(0.5, (4,)), conv(x), 0.0),
    "before the convolution": lambda conv: lambda x: conv(x + mx.random.normal(x.shape)),
}


@pytest.mark.parametrize("name", RANDOM)
def test_random_numbers(name):
    """The first call and all later ones draw exactly what the plain function draws."""
    plain, x = RANDOM[name](small_conv()), image()
    fast = convjit.compile(plain, fallback="quiet")
    mx.random.seed(11)
    expected = [plain(x) for _ in range(4)]
    mx.eval(expected)
    mx.random.seed(11)
    actual = [fast(x) for _ in range(4)]
    assert_close(actual, expected)
    assert_different(actual[0], actual[1])
    assert_close([mx.random.uniform()], [(mx.random.seed(11), [plain(x) for _ in range(4)], mx.random.uniform())[2]])
    assert "random" in reasons(fast)


def test_a_capture_draws_nothing():
    conv, x = small_conv(), image()
    mx.random.seed(5)
    expected = mx.random.uniform()
    mx.eval(expected)
    fast = fast_of(conv)
    mx.random.seed(5)
    mx.eval(fast(x), fast(image(2, 6, 6, 3)))
    assert_close(mx.random.uniform(), expected)
    assert num_kernels(fast) == 1


def test_dropout_in_training_and_evaluation():
    net, x = Dropped(), image()
    fast = convjit.compile(net, fallback="quiet")
    assert_different(fast(x), fast(x))
    net.eval()
    assert_close(fast(x), nn.relu(net.conv(x)))
    assert num_kernels(fast) == 1
    net.train()
    assert_different(fast(x), fast(x))
    mx.random.seed(3)
    expected = net(x)
    mx.eval(expected)
    mx.random.seed(3)
    assert_close(fast(x), expected)


def test_key_as_an_argument():
    """Explicit keys are ordinary arrays: whether compiled or not, the same key draws the same numbers."""
    conv, x = small_conv(), image()

    def plain(x, key):
        return conv(x) + mx.random.normal((4,), key=key)

    fast = convjit.compile(plain, fallback="quiet")
    for seed in (1, 2, 1):
        key = mx.random.key(seed)
        assert_close(fast(x, key), plain(x, key))


def test_seed_inside():
    conv, x = small_conv(), image()

    def plain(x):
        mx.random.seed(1)
        return conv(x) + mx.random.normal((4,))

    fast = convjit.compile(plain, fallback="quiet")
    for _ in range(2):
        assert_close(fast(x), plain(x))


def test_a_large_seed_survives_a_capture():
    conv, seed = small_conv(), (123456789 << 32) | 987654321
    mx.random.seed(seed)
    expected = mx.random.uniform(shape=(4,))
    mx.eval(expected)
    mx.random.seed(seed)
    fast_of(conv)(image())
    assert_close(mx.random.uniform(shape=(4,)), expected)
