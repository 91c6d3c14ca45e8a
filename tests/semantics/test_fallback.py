"""What happens where something cannot be compiled: warnings, errors, plain MLX."""

import re
import warnings

import mlx.core as mx
import mlx.nn as nn
import pytest
from checks import assert_close, fast_of, image, num_kernels, reasons, small_conv

import convjit
from convjit.ir import replay

CONV = small_conv()


def with_item(x):
    return CONV(x) * x.sum().item()


def with_eval(x):
    y = CONV(x)
    mx.eval(y)
    return y + 1


def with_print(x):
    y = CONV(x)
    print(y[0, 0, 0, 0])
    return y


def with_branch(x):
    y = CONV(x)
    return y if y.sum() > 0 else y - 1


def with_float(x):
    return CONV(x) * float(x.max())


def with_numpy(x):
    import numpy as np

    return CONV(x) * float(np.array(x).max())


def without_convolution(x):
    return nn.relu(x) * 2


def returning_nothing(x):
    CONV(x)


def with_inverse(x):
    return mx.linalg.inv(CONV(x)[..., :4, :4, 0] + 9 * mx.eye(4), stream=mx.cpu)


EVALUATES = "it evaluates an array"
CANNOT = {
    with_item: EVALUATES,
    with_eval: EVALUATES,
    with_print: EVALUATES,
    with_branch: EVALUATES,
    with_float: EVALUATES,
    with_numpy: EVALUATES,
    without_convolution: "it has no convolution",
    returning_nothing: "it returns no arrays",
    with_inverse: "primitive Inverse has no replay rule",
}


@pytest.mark.parametrize("plain", CANNOT, ids=lambda f: f.__name__)
def test_falls_back(plain):
    x = image()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fast = convjit.compile(plain)
        for y in (x, x, image(2, 6, 6, 3)):
            assert_close(fast(y), plain(y))
    (warning,) = caught
    message = str(warning.message)
    assert warning.category is convjit.FallbackWarning and warning.filename == __file__
    assert message.startswith(f"convjit: {plain.__name__}: runs as plain MLX: ") and CANNOT[plain] in message
    assert "\n" not in message

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quiet = convjit.compile(plain, fallback="quiet")
        assert_close(quiet(x), plain(x))
    assert CANNOT[plain] in reasons(quiet)
    assert convjit.inspect.explain(quiet).backend == "plain MLX"

    strict = convjit.compile(plain, fallback="error")
    for _ in range(2):
        with pytest.raises(convjit.CompileError, match=f"convjit: {plain.__name__}: .*{re.escape(CANNOT[plain])}"):
            strict(x)


def test_the_warning_says_what_would_help():
    with pytest.warns(convjit.FallbackWarning, match=r"move that out of the compiled function"):
        convjit.compile(with_item)(image())


def test_some_signatures_fall_back_and_others_do_not():
    def plain(x, fancy):
        return with_item(x) if fancy else CONV(x)

    fast, x = convjit.compile(plain, fallback="quiet"), image()
    for fancy in (True, False, True, False):
        assert_close(fast(x, fancy), plain(x, fancy))
    strict = fast_of(plain)
    assert_close(strict(x, False), CONV(x))
    with pytest.raises(convjit.CompileError):
        strict(x, True)
    assert_close(strict(x, False), CONV(x))
    assert num_kernels(strict) == 1


def test_one_unusual_convolution_among_others():
    """float64 and complex run as they do in MLX; what can be compiled is compiled."""
    x = image()
    double = CONV.weight.astype(mx.float64)

    def plain(x):
        wide = mx.conv2d(x.astype(mx.float64), double, padding=1)
        return nn.relu(CONV(x)), wide

    fast = convjit.compile(plain, fallback="quiet")
    with mx.stream(mx.cpu):
        assert_close(fast(x), plain(x))
        assert fast(x)[1].dtype == mx.float64
        assert_close(fast(x)[1], plain(x)[1], rtol=1e-12)
    assert num_kernels(fast) == 1


def test_a_replay_that_only_its_first_run_can_refuse(monkeypatch):
    def refuse(inputs, arguments, outputs):
        raise replay.UnknownPrimitive("MLX's primitive Reduce with these slices has no replay rule")

    monkeypatch.setitem(replay.RULES, "Reduce", replay.Rule(2, refuse))
    conv, x = small_conv(), image()
    fast = convjit.compile(lambda x: conv(x).max(axis=1))
    with pytest.warns(convjit.FallbackWarning, match="runs as plain MLX: MLX's primitive Reduce"):
        assert_close(fast(x), conv(x).max(axis=1))
    assert_close(fast(x), conv(x).max(axis=1))
    assert num_kernels(fast) == 0
    with pytest.raises(convjit.CompileError, match="Reduce"):
        convjit.compile(lambda x: conv(x).max(axis=1), fallback="error")(x)
