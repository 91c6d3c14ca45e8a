"""Options of convjit.compile, switches, and devices."""

import mlx.core as mx
import mlx.nn as nn
import pytest
from checks import Net, assert_close, fast_of, image, num_kernels, reasons, small_conv

import convjit

CONV = small_conv()


def test_disable_and_enable():
    net, x = Net(), image()
    fast = fast_of(net)
    convjit.disable()
    try:
        assert_close(fast(x), net(x))
        with pytest.raises(ValueError, match="has not compiled anything yet"):
            convjit.inspect.explain(fast)
        assert_close(mx.grad(lambda x: fast(x).sum())(x), mx.grad(lambda x: net(x).sum())(x))
    finally:
        convjit.enable()
    assert_close(fast(x), net(x))
    assert num_kernels(fast) == 3


def test_bad_options():
    with pytest.raises(ValueError, match="fallback must be"):
        convjit.compile(CONV, fallback="loud")
    with pytest.raises(TypeError, match="takes a function or a module"):
        convjit.compile(3)
    with pytest.raises(TypeError, match=r"a subclass of nn\.Module"):
        convjit.compile(int)


def test_unknown_backend_and_pipeline():
    x = image()
    with pytest.raises(convjit.CompileError, match="there is no backend 'tpu'"):
        convjit.compile(CONV, backend="tpu", fallback="error")(x)
    with pytest.warns(convjit.FallbackWarning, match="there is no backend 'tpu'"):
        assert_close(convjit.compile(CONV, backend="tpu")(x), CONV(x))
    with pytest.raises((convjit.CompileError, ValueError), match="no-such-pass"):
        convjit.compile(CONV, pipeline="raise-conv,no-such-pass", fallback="error")(x)


def test_a_chip_that_is_unknown(monkeypatch):
    """Is told with the variable that names it and the way out; it is no error of convjit's own."""
    monkeypatch.setenv("CONVJIT_CHIP", "M9 Max")
    with pytest.warns(convjit.FallbackWarning, match="plain MLX: CONVJIT_CHIP is 'M9 Max', no chip .*: unset it, or "):
        convjit.compile(CONV, backend="simulator")(image())
    with pytest.raises(convjit.CompileError, match="CONVJIT_CHIP is 'M9 Max'") as raised:
        convjit.compile(CONV, backend="simulator", fallback="error")(image())
    assert "internal" not in str(raised.value)


def test_a_gpu_that_is_not_metal(monkeypatch):
    """The default device is read at every call and is part of the key."""
    net, x = Net(), image()
    monkeypatch.setattr(mx, "is_available", lambda device: True)
    fast = convjit.compile(net, fallback="quiet")
    fast(x)
    assert num_kernels(fast) == 3
    with monkeypatch.context() as patch:
        patch.setattr(mx, "default_device", lambda: mx.Device(mx.gpu, 0))
        patch.setattr(mx.metal, "is_available", lambda: False)
        assert_close(fast(x), net(x))
        assert "the default device is a GPU that is not Metal" in reasons(fast)
    assert_close(fast(x), net(x))
    assert len(fast._entries) == 2


def test_mlx_compilation_stays_as_the_user_set_it():
    """MLX cannot trace some compiled functions; whatever is done about it, the user's setting is restored."""
    x = image()
    resized = nn.Sequential(CONV, nn.Upsample(2, mode="cubic"))
    probe = []

    def is_compiled():
        probe.clear()
        identity = mx.compile(lambda x: (probe.append(1), x + 1)[1])
        identity(x), identity(x)
        return len(probe) == 1

    at_first = is_compiled()  # MLX itself does without, where there is no compiler for its own kernels
    mx.disable_compile()
    try:
        assert not is_compiled()
        fast = convjit.compile(resized, fallback="quiet")
        assert_close(fast(x), resized(x))
        assert not is_compiled()
    finally:
        mx.enable_compile()
    assert_close(fast_of(resized)(x), resized(x))
    assert is_compiled() == at_first


def test_works_while_mlx_compilation_is_off():
    net, x = Net(), image()
    mx.disable_compile()
    try:
        fast = fast_of(net)
        for _ in range(2):
            assert_close(fast(x), net(x))
        gradient = mx.grad(lambda x: fast(x).square().sum())(x)
        assert_close(gradient, mx.grad(lambda x: net(x).square().sum())(x))
    finally:
        mx.enable_compile()
    assert num_kernels(fast) == 6  # of the gradient: forward and backward
