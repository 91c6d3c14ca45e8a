"""Rule 10: results are independent of everything that happens later, and alias as in plain MLX."""

import gc
import threading
import time

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from checks import ConvNorm, Net, assert_close, fast_of, image, num_kernels, small_conv, to_numpy

import convjit
from convjit.execution.program import Program

CONV = small_conv()


@pytest.mark.parametrize("evaluated", [False, True], ids=["lazy", "evaluated"])
def test_results_outlive_later_calls_and_writes(evaluated):
    net, x = Net(), image()
    fast = fast_of(net)
    expected = net(x)
    mx.eval(expected)
    y = fast(x)
    if evaluated:
        mx.eval(y)
    others = [fast(image(seed=seed)) for seed in range(5)]
    x[...] = 0.0
    net.conv.weight[...] = 0.0
    net.layers[0].bias[0] = 99.0
    others[0][...] = -1.0
    mx.eval(others, fast(image(seed=9)))
    assert_close(y, expected)
    assert_close(others[1], others[1] + 0)


def test_inputs_are_not_changed_and_results_not_shared():
    net, x = Net(), image()
    before = to_numpy(x).copy()
    fast = fast_of(net)
    first, second = fast(x), fast(x)
    assert first is not second
    first[...] = 0.0
    assert_close(second, net(x))
    np.testing.assert_array_equal(to_numpy(x), before)


def test_memory_views_of_results_and_inputs():
    fast, x = fast_of(CONV), image()
    expected = to_numpy(CONV(x)).copy()
    view = memoryview(fast(x))
    array = np.array(fast(x), copy=False)
    gc.collect()
    for seed in range(5):
        mx.eval(fast(image(seed=seed)))
    np.testing.assert_allclose(np.array(view), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(array, expected, rtol=1e-5, atol=1e-5)


def test_writes_through_a_view_of_a_result_stay_there():
    fast, x = fast_of(lambda x: (lambda y: (y, y * 1.0))(CONV(x))), image()
    first, second = fast(x)
    mx.eval(first, second)
    np.array(first, copy=False)[...] = 0.0
    assert_close(second, CONV(x))
    assert_close(fast(x), (CONV(x), CONV(x)))


@pytest.mark.parametrize("name", ["input", "parameter", "constant", "scalar", "view", "state"])
def test_what_is_returned_as_it_came(name):
    """`y = fast(x); y[0] = 5` may change what plain MLX would change, and never the next call's result."""
    bias = image(4, seed=20)

    class Returning(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.gain = small_conv(), mx.array([1.0, 2.0, 3.0, 4.0])

        def __call__(self, x):
            y = self.conv(x) * self.gain + bias
            if name == "state":
                self.last = y
            returned = {
                "input": x,
                "parameter": self.gain,
                "constant": bias,
                "scalar": mx.array(3.0),
                "view": x[0, 1],
                "state": y,
            }
            return y, returned[name]

    net, twin = Returning(), Returning()
    fast = fast_of(net)
    x, x2 = image(), image()
    fast(x)
    ours, theirs = fast(x), twin(x2)
    assert_close(ours, theirs)
    if name in ("input", "parameter", "state"):
        owner = {"input": (x, x2), "parameter": (net.gain, twin.gain), "state": (net.get("last"), twin.get("last"))}
        assert ours[1] is owner[name][0] and theirs[1] is owner[name][1]
    for result in (ours, theirs):
        result[1][...] = 5.0
    if name == "constant":
        bias = image(4, seed=20)  # the plain function's write went into what it captured: undo it
    if name == "scalar":
        assert_close(fast(x)[1], mx.array(3.0))
    assert_close(fast(x), twin(x2))
    assert_close(x, x2)


def test_the_same_array_twice():
    def plain(x):
        y = CONV(x)
        return y, [y], y + 0.0

    fast, x = fast_of(plain), image()
    first, (second,), third = fast(x)
    assert first is second and first is not third
    first[...] = 1.0
    assert float(second.min()) == 1.0
    assert_close(fast(x), plain(x))
    assert_close(third, CONV(x))


INPUTS = {
    "transposed": lambda: image(1, 3, 6, 6).transpose(0, 2, 3, 1),
    "swapped": lambda: image(1, 6, 6, 3).swapaxes(1, 2),
    "sliced": lambda: image(2, 8, 9, 5)[1:, 1:7, 2:8, 1:4],
    "strided": lambda: image(1, 12, 12, 3)[:, ::2, ::2],
    "reversed": lambda: image()[:, ::-1, ::-1],
    "broadcast": lambda: mx.broadcast_to(image(1, 1, 1, 3), (1, 6, 6, 3)),
    "broadcast channel": lambda: mx.broadcast_to(image(1, 6, 6, 1), (1, 6, 6, 3)),
    "expanded": lambda: mx.broadcast_to(mx.array(2.0), (1, 6, 6, 3)),
    "as_strided": lambda: mx.as_strided(image(400), (1, 6, 6, 3), (0, 36, 3, 1), 17),
    "offset": lambda: image(4, 6, 6, 3)[2:3],
    "lazy": lambda: mx.exp(image()) * 2,
    "lazy view": lambda: (mx.exp(image(1, 3, 6, 6)) * 2).transpose(0, 2, 3, 1),
    "from numpy": lambda: mx.array(np.asfortranarray(np.random.default_rng(0).normal(size=(1, 6, 6, 3)), np.float32)),
    "zeros": lambda: mx.zeros((1, 6, 6, 3)),
    "being computed": lambda: (lambda y: (mx.async_eval(y), y)[1])(mx.sin(image()) * 3),
}


@pytest.mark.parametrize("kind", INPUTS)
def test_inputs_in_memory(kind):
    """Inputs, residuals and weights that are not row-contiguous, or not computed yet."""
    x = INPUTS[kind]()
    fast = fast_of(CONV)
    fast(image())
    assert_close(fast(x), CONV(x))
    assert_close(fast(INPUTS[kind]()), CONV(x))

    residual = fast_of(lambda x, r: nn.relu(mx.conv2d(x, CONV.weight[:3], padding=1) + r))
    assert_close(residual(image(), x), nn.relu(mx.conv2d(image(), CONV.weight[:3], padding=1) + x))


WEIGHTS = {
    "transposed": lambda w: w.transpose(0, 2, 1, 3),
    "from OIHW": lambda w: mx.contiguous(w.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1),
    "broadcast": lambda w: mx.broadcast_to(w[:1], w.shape),
    "reversed": lambda w: w[::-1, ::-1],
    "sliced": lambda w: mx.concatenate([w, w], axis=3)[..., 1:4],
    "lazy": lambda w: mx.exp(w),
}


@pytest.mark.parametrize("kind", WEIGHTS)
@pytest.mark.parametrize("where", ["parameter", "argument", "closure"])
def test_weights_in_memory(kind, where):
    conv, x = small_conv(), image()
    w = WEIGHTS[kind](conv.weight)
    expected = nn.relu(mx.conv2d(x, w, padding=1) + conv.bias)
    if where == "parameter":
        fast = fast_of(lambda x: nn.relu(conv(x)))
        fast(x)
        conv.weight = WEIGHTS[kind](conv.weight)
        assert_close(fast(x), expected)
    elif where == "argument":
        fast = fast_of(lambda x, w, b: nn.relu(mx.conv2d(x, w, padding=1) + b))
        assert_close(fast(x, w, conv.bias), expected)
        assert_close(fast(x, WEIGHTS[kind](conv.weight), conv.bias), expected)
    else:
        bias = conv.bias
        fast = fast_of(lambda x: nn.relu(mx.conv2d(x, w, padding=1) + bias))
        assert_close(fast(x), expected)
        assert_close(fast(x), expected)


def test_one_array_for_everything():
    """Input, weight and residual are one array; and the result goes in again."""

    def plain(x):
        y = x
        for _ in range(3):
            y = mx.tanh(mx.conv2d(y, x, padding=1) + x)
        return y

    x = image(3, 3, 3, 3) * 0.2
    fast = fast_of(plain)
    assert_close(fast(x), plain(x))
    y = x
    for _ in range(3):
        y = fast(y)
    assert_close(y, plain(plain(plain(x))))
    assert num_kernels(fast) == 3


def test_an_input_that_is_captured_too():
    """The same array arrives as an argument, in a closure, as a parameter and as another argument."""
    x, conv = image(4, 3, 3, 3), small_conv()
    conv.weight = x

    def plain(a, b):
        return nn.relu(conv(a)) + mx.conv2d(a, x, padding=1) * mx.conv2d(b, conv.weight, padding=1)

    fast = fast_of(plain)
    for other in (x, image(4, 3, 3, 3), x):
        assert_close(fast(x, other), plain(x, other))
        assert_close(fast(other, other), plain(other, other))


def test_results_inside_larger_lazy_programs():
    net, x = Net(), image()
    fast = fast_of(net)
    lazily = mx.exp(fast(x * 2) * 0.1) + fast(mx.sin(x))
    assert_close(lazily, mx.exp(net(x * 2) * 0.1) + net(mx.sin(x)))
    chained = fast(fast(x)[..., :3])
    assert_close(chained, net(net(x)[..., :3]))


# --- threads ---------------------------------------------------------------------------------------------------


def in_threads(count, work):
    errors = []
    barrier = threading.Barrier(count)

    def run(n):
        try:
            barrier.wait(30)
            work(n)
        except BaseException as e:
            errors.append(e)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_concurrent_calls_of_one_function():
    net = Net()
    fast = fast_of(net)
    inputs = [image(1 + n % 3, 6, 6, 3, seed=n) for n in range(8)]
    expected = [net(x) for x in inputs]
    mx.eval(expected)

    def work(n):
        for step in range(12):
            i = (n * 5 + step) % 8
            assert_close(fast(inputs[i]), expected[i])

    in_threads(4, work)


def test_captures_while_others_run():
    """New signatures are captured in one thread while other threads call, and while plain MLX uses the same model."""
    net, x = Net(), image()
    fast = fast_of(net)
    expected = net(x)
    mx.eval(expected)
    fast(x)

    def work(n):
        for step in range(8):
            if n == 0:
                y = image(1, 4, 4 + step, 3, seed=step)
                assert_close(fast(y), net(y))
            elif n == 1:
                assert_close(net(x), expected)
            else:
                assert_close(fast(x), expected)

    in_threads(3, work)


def test_weights_change_while_others_run():
    """Each result belongs to one version of the weights, never to two."""
    conv, x = small_conv(), mx.ones((1, 6, 6, 3))
    fast = fast_of(conv)
    conv.weight, conv.bias = mx.ones_like(conv.weight), mx.zeros(4)
    mx.eval(fast(x))
    stop = threading.Event()

    def work(n):
        if n == 0:
            for step in range(40):
                weight = mx.full(conv.weight.shape, float(1 + step % 4))
                mx.eval(weight)
                conv.weight = weight
            stop.set()
            return
        while not stop.is_set():
            centre = to_numpy(fast(x))[0, 2, 2]
            assert centre.min() == centre.max() and centre[0] in (27.0, 54.0, 81.0, 108.0)

    in_threads(3, work)
    assert_close(fast(x), conv(x))


def test_weights_put_back_while_new_ones_are_packed(monkeypatch):
    """A second call that waits for the first one's packing must not keep what it then finds packed."""
    conv, x = small_conv(), image()
    fast = fast_of(conv)
    first, expected = conv.weight, conv(x)
    mx.eval(fast(x), expected)
    threads = []

    def prepared_late(program, traced):
        packed = prepared(program, traced)
        if not threads:
            conv.weight = first
            threads.append(threading.Thread(target=lambda: mx.eval(fast(x))))
            threads[0].start()
            time.sleep(0.1)  # until it waits
        return packed

    prepared = Program.prepared
    monkeypatch.setattr(Program, "prepared", prepared_late)
    conv.weight = first * 2
    mx.eval(fast(x))
    threads[0].join()
    assert_close(fast(x), expected)


def test_gradients_in_one_thread_and_inference_in_others():
    conv, x = small_conv(), image()
    net = ConvNorm().eval()
    fast = fast_of(net)
    other = fast_of(conv)
    mx.eval(fast(x), other(x))
    expected = net(x)
    gradient = mx.grad(lambda x: conv(x).square().sum())(x)
    mx.eval(expected, gradient)

    def work(n):
        for _ in range(10):
            if n:
                assert_close(fast(x), expected)
            else:
                assert_close(mx.grad(lambda x: other(x).square().sum())(x), gradient)

    in_threads(3, work)


def test_disable_in_the_middle():
    net, x = Net(), image()
    fast = fast_of(net)
    y = fast(x)
    convjit.disable()
    try:
        assert_close(fast(x), y)
    finally:
        convjit.enable()
    assert_close(fast(x), y)
