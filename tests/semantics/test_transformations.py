"""Rules 1 and 2: under every transformation of MLX the plain function runs, and no gradient is ever lost.

Tracers that a function captures are in test_captured_tracers.py, what MLX itself cannot do in test_higher_order.py.
"""

import threading

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import pytest
from checks import (
    ConvNorm,
    Net,
    assert_close,
    assert_different,
    assert_gradients,
    fast_of,
    image,
    num_kernels,
    small_conv,
    twins,
)
from mlx.utils import tree_flatten

import convjit


def loss_of(function):
    return lambda *args: function(*args).square().sum()


TRANSFORMS = {
    "grad": lambda f: lambda x: mx.grad(loss_of(f))(x),
    "value_and_grad": lambda f: lambda x: mx.value_and_grad(loss_of(f))(x),
    "vjp": lambda f: lambda x: mx.vjp(f, [x], [mx.ones((1, 6, 6, 4))]),
    "vmap": lambda f: lambda x: mx.vmap(f)(mx.stack([x, 2 * x])),
    "compile": lambda f: lambda x: mx.compile(f)(x),
    "compiled grad": lambda f: lambda x: mx.compile(mx.grad(loss_of(f)))(x),
    "grad of compiled": lambda f: lambda x: mx.grad(loss_of(mx.compile(f)))(x),
    "grad of grad": lambda f: lambda x: mx.grad(lambda x: mx.grad(loss_of(f))(x).square().sum())(x),
    "grad of vmap": lambda f: lambda x: mx.grad(loss_of(mx.vmap(f)))(mx.stack([x, x])),
    "vmap of grad": lambda f: lambda x: mx.vmap(mx.grad(loss_of(f)))(mx.stack([x, 2 * x])),
    "checkpoint": lambda f: lambda x: mx.grad(loss_of(mx.checkpoint(f)))(x),
}


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_of_the_input(name, warm):
    net, x = Net(), image()
    fast = fast_of(net)
    if warm:
        assert_close(fast(x), net(x))
    assert_close(TRANSFORMS[name](fast)(x), TRANSFORMS[name](net)(x))
    assert_close(fast(x), net(x))
    assert num_kernels(fast) in (3, 6)  # of the last capture: a call, or a gradient by the input


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
def test_a_result_that_is_returned_twice(warm):
    """Its cotangents add up, though `mx.vjp` itself drops one of them."""
    net, x = Net(), image()

    def plain(x):
        y = net(x)
        return [y, y, y.reshape(y.shape)]

    def loss(f):
        return lambda x: sum((mx.sin(y) * n).sum() for n, y in enumerate(f(x), 1))

    fast = fast_of(plain)
    if warm:
        fast(x)
    assert_gradients(mx.grad(loss(fast))(x), mx.grad(loss(plain))(x))
    both = nn.value_and_grad(net, lambda m: loss(fast)(x))(net)
    assert_gradients(both, nn.value_and_grad(net, lambda m: loss(plain)(x))(net))


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
def test_only_the_parameters_are_tracers(warm):
    net, x = Net(), image()
    fast = fast_of(net)
    if warm:
        fast(x)
    for _ in range(3):
        value, gradients = nn.value_and_grad(net, lambda m: fast(x).square().sum())(net)
        expected, expected_gradients = nn.value_and_grad(net, lambda m: m(x).square().sum())(net)
        assert_close(value, expected)
        assert_gradients(gradients, expected_gradients)
        assert_close(fast(x), net(x))
    assert num_kernels(fast) == (8 if warm else 3)  # forward 3, gradients of weights 3 and of inputs 2


def test_only_one_parameter_is_a_tracer():
    """A tracer deep in the tree, behind a slot that held a plain array at every call before."""
    net, x = Net(), image()
    fast = fast_of(net)
    fast(x)

    def loss(f, gain):
        old, net.table["gain"] = net.table["gain"], gain
        try:
            return f(x).square().sum()
        finally:
            net.table["gain"] = old

    gain = mx.array([1.0, 2.0, 3.0, 4.0])
    assert_gradients(mx.grad(lambda g: loss(fast, g))(gain), mx.grad(lambda g: loss(net, g))(gain))
    assert_close(fast(x), net(x))


def test_training_steps_and_inference_take_turns():
    (net, twin), x = twins(Net), image()
    fast = fast_of(net)
    for model, call in ((net, fast), (twin, twin)):
        optimizer = optim.Adam(1e-2)
        step = nn.value_and_grad(model, lambda x, call=call: call(x).square().mean())
        for _ in range(4):
            _, gradients = step(x)
            optimizer.update(model, gradients)
            mx.eval(model.parameters())
            call(x)
    assert_close(fast(x), twin(x), rtol=1e-4)
    assert num_kernels(fast) == 3


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
def test_the_module_is_an_argument(warm):
    net, x = Net(), image()

    def forward(model, x):
        return nn.relu(model(x))

    fast = fast_of(forward)
    if warm:
        fast(net, x)
    actual = nn.value_and_grad(net, lambda m: fast(m, x).sum())(net)
    expected = nn.value_and_grad(net, lambda m: forward(m, x).sum())(net)
    assert_close(actual[0], expected[0])
    assert_gradients(actual[1], expected[1])
    assert_close(fast(net, x), forward(net, x))


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
def test_arrays_in_an_argument_tree(warm):
    conv, x = small_conv(), image()
    parameters = dict(conv.parameters())

    def forward(parameters, x):
        return nn.silu(mx.conv2d(x, parameters["weight"]) + parameters["bias"])

    fast = fast_of(forward)
    if warm:
        assert_close(fast(parameters, x), forward(parameters, x))
    actual = mx.grad(lambda p: fast(p, x).sum())(parameters)
    assert_gradients(actual, mx.grad(lambda p: forward(p, x).sum())(parameters))
    actual = mx.grad(lambda k: fast(parameters=k, x=x).sum())(parameters)
    assert_gradients(actual, mx.grad(lambda p: forward(p, x).sum())(parameters))


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
def test_bound_method_and_decorated_class(warm):
    @convjit.compile(fallback="error")
    class Block(ConvNorm):
        def head(self, x):
            return self(x).sum(axis=(1, 2))

    block, x = Block().eval(), image()
    plain = ConvNorm().eval()
    plain.update(block.parameters())
    head = fast_of(block.head)
    if warm:
        block(x), head(x)
    for call, expected in ((block, plain), (head, lambda x: plain(x).sum(axis=(1, 2)))):
        actual = nn.value_and_grad(block, lambda m, call=call: call(x).square().sum())(block)
        wanted = nn.value_and_grad(plain, lambda m, call=expected: call(x).square().sum())(plain)
        assert_gradients(actual[1], wanted[1])
        assert_close(call(x), expected(x))


def test_gradients_in_training_also_update_the_running_statistics():
    (net, twin), x = twins(ConvNorm), image()
    fast = fast_of(net)
    for step in range(3):
        a = nn.value_and_grad(net, lambda m: fast(x).square().sum())(net)
        b = nn.value_and_grad(twin, lambda m: m(x).square().sum())(twin)
        assert_gradients(a[1], b[1])
        if step:
            assert_close(fast(x), twin(x))
        assert_close(dict(tree_flatten(net.parameters())), dict(tree_flatten(twin.parameters())))


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
def test_mx_compile_around_a_function_without_tracers(warm):
    """mx.compile traces `lambda: fast(x)` with no tracer at all, or with the random state as its only one."""
    net, x = Net(), image()
    fast = fast_of(net)
    if warm:
        fast(x)
    assert_close(mx.compile(lambda: fast(x) * 2)(), net(x) * 2)
    state = mx.random.state
    randomly = mx.compile(lambda: fast(x) + mx.random.uniform(shape=(4,)), inputs=state, outputs=state)
    assert_different(randomly(), randomly())
    assert_close(fast(x), net(x))
    assert num_kernels(fast) == 3


def test_mx_compile_with_the_weights_as_its_state():
    net, x = Net(), image()
    fast = fast_of(net)
    fast(x)
    outer = mx.compile(lambda x: fast(x), inputs=net.state)
    before = outer(x)
    assert_close(before, net(x))
    net.update({"conv": {"weight": net.conv.weight * 2}})
    assert_close(outer(x), net(x))
    assert_different(outer(x), before)


def test_export_around(tmp_path):
    net, x = Net(), image()
    fast = fast_of(net)
    fast(x)
    file = str(tmp_path / "net.mlxfn")
    mx.export_function(file, fast, x)
    assert_close(mx.import_function(file)(x)[0], net(x))


def test_vmap_over_the_parameters():
    conv, x = small_conv(), image()
    fast = fast_of(conv)
    fast(x)

    def call(function, weight):
        old, conv.weight = conv.weight, weight
        try:
            return function(x)
        finally:
            conv.weight = old

    stacked = mx.stack([conv.weight, 2 * conv.weight])
    assert_close(mx.vmap(lambda w: call(fast, w))(stacked), mx.vmap(lambda w: call(conv, w))(stacked))
    assert_close(fast(x), conv(x))


def test_custom_function_and_its_vjp():
    conv, x = small_conv(), image()
    fast = fast_of(conv)

    def around(f):
        custom = mx.custom_function(f)
        custom.vjp(lambda primals, cotangents, outputs: mx.vjp(f, [primals], [cotangents])[1][0] * 2)
        return custom

    expected = mx.grad(loss_of(around(conv)))(x)
    assert_gradients([mx.grad(loss_of(around(fast)))(x)], [expected])


def test_another_thread_is_inside_a_transformation():
    """Its tracers must neither be taken for ours nor stop this thread from compiling."""
    net, x = Net(), image()
    fast, other = fast_of(net), fast_of(small_conv())
    inside, done = threading.Event(), threading.Event()
    outcome = {}

    def differentiate():
        def loss(x):
            inside.set()
            assert done.wait(60)
            return other(x).square().sum()

        outcome["gradient"] = mx.grad(loss)(x)
        mx.eval(outcome["gradient"])

    thread = threading.Thread(target=differentiate)
    thread.start()
    try:
        assert inside.wait(60)
        results = [fast(x), fast(x)]
        mx.eval(results)
    finally:
        done.set()
        thread.join()
    assert_close(results, [net(x), net(x)])
    assert num_kernels(fast) == 3
    assert_gradients([outcome["gradient"]], [mx.grad(loss_of(small_conv()))(x)])
