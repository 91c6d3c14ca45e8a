"""Rule 8: what is compiled draws the very numbers that the plain function draws, and a capture draws none."""

import threading

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
    "odd numbers of them": lambda conv: lambda x: conv(x) * mx.random.uniform(shape=(5, 5, 1)).sum(),
    "a permutation": lambda conv: lambda x: conv(x)[..., mx.random.permutation(3)],
    "integers": lambda conv: lambda x: conv(x) + mx.random.randint(0, 9, (6, 4)),
    "categories": lambda conv: lambda x: mx.random.categorical(conv(x)) + conv(x).sum(-1),
}


@pytest.mark.parametrize("name", RANDOM)
def test_random_numbers(name):
    """The first call and all later ones draw exactly what the plain function draws."""
    plain, x = RANDOM[name](small_conv()), image()
    fast = fast_of(plain)
    mx.random.seed(11)
    expected = [plain(x) for _ in range(4)]
    mx.eval(expected)
    mx.random.seed(11)
    actual = [fast(x) for _ in range(4)]
    assert_close(actual, expected)
    assert_different(actual[0], actual[1])
    after = mx.random.uniform()
    mx.random.seed(11)
    mx.eval([plain(x) for _ in range(4)])
    assert_close(after, mx.random.uniform())
    assert num_kernels(fast) == 1


def test_half_precision():
    """The same bits; what is made of them is rounded once, where MLX rounds after every op."""
    conv, x = small_conv(), image()

    def plain(x):
        return conv(x) + mx.random.truncated_normal(-1, 1, (4,), mx.float16)

    fast = fast_of(plain)
    mx.random.seed(11)
    expected = [plain(x) for _ in range(3)]
    mx.random.seed(11)
    assert_close([fast(x) for _ in range(3)], expected, rtol=2e-3)


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
    fast = fast_of(net)
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
        return conv(x) + mx.random.normal((4,), key=key) + mx.random.normal((4,), key=mx.random.split(key)[1])

    fast = fast_of(plain)
    before = mx.random.state[0]
    for seed in (1, 2, 1):
        key = mx.random.key(seed)
        assert_close(fast(x, key), plain(x, key))
    assert mx.array_equal(mx.random.state[0], before)


def test_seed_inside():
    conv, x = small_conv(), image()

    def plain(x):
        mx.random.seed(1)
        return conv(x) + mx.random.normal((4,))

    fast = fast_of(plain)
    for _ in range(2):
        assert_close(fast(x), plain(x))
        after = mx.random.uniform()
        plain(x)
        assert_close(after, mx.random.uniform())


def test_a_large_seed_survives_a_capture():
    conv, seed = small_conv(), (123456789 << 32) | 987654321
    mx.random.seed(seed)
    expected = mx.random.uniform(shape=(4,))
    mx.eval(expected)
    mx.random.seed(seed)
    fast_of(conv)(image())
    assert_close(mx.random.uniform(shape=(4,)), expected)


def test_who_holds_the_state_keeps_what_it_was():
    fast = fast_of(Dropped())
    mx.random.seed(3)
    held, copied = mx.random.state[0], mx.array(mx.random.state[0])
    for _ in range(2):
        fast(image())
    assert mx.array_equal(held, copied) and not mx.array_equal(mx.random.state[0], copied)


def test_each_thread_draws_from_its_own_state():
    net, x = Dropped(), image()
    fast, drawn = fast_of(net), {}
    fast(x)

    def draw(seed):
        mx.random.seed(seed)
        drawn[seed] = [fast(x) for _ in range(3)]
        mx.eval(drawn[seed])

    threads = [threading.Thread(target=draw, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in (1, 2):
        mx.random.seed(seed)
        assert_close(drawn[seed], [net(x) for _ in range(3)])


def test_under_an_outer_compile_the_state_is_the_outer_ones():
    """The random state is the only tracer there."""
    net, x = Dropped(), image()
    fast, state = fast_of(net), mx.random.state
    fast(x)
    outer = mx.compile(lambda: fast(x), inputs=state, outputs=state)
    mx.random.seed(4)
    actual = [outer() for _ in range(3)]
    mx.random.seed(4)
    assert_close(actual, [net(x) for _ in range(3)])


def test_dropout_under_a_gradient():
    net, x = Dropped(), image()
    fast = fast_of(net)
    fast(x)
    mx.random.seed(5)
    actual = [mx.grad(lambda x: fast(x).square().sum())(x) for _ in range(2)]
    mx.random.seed(5)
    assert_close(actual, [mx.grad(lambda x: net(x).square().sum())(x) for _ in range(2)])


def test_a_vmapped_draw_stays_plain():
    """Many keys at once have no counterpart among MLX's functions."""
    conv, x = small_conv(), image()

    def plain(x, keys):
        return conv(x) + mx.vmap(lambda key: mx.random.normal((4,), key=key))(keys).sum(0)

    fast, keys = convjit.compile(plain, fallback="quiet"), mx.random.split(mx.random.key(1), 3)
    assert_close(fast(x, keys), plain(x, keys))
    assert "keys" in reasons(fast)
