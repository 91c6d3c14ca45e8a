"""The user's own exceptions pass, and wrong arguments are told as MLX tells them, or better."""

import traceback
import warnings

import mlx.core as mx
import pytest
from checks import Net, assert_close, fast_of, image, num_kernels, small_conv

import convjit

CONV = small_conv()


def fails_deep_inside(x):
    y = CONV(x)
    raise LookupError(f"no such thing as {y.shape}")


def outer(x):
    return fails_deep_inside(x) + 1


@pytest.mark.parametrize("fallback", ["warn", "error", "quiet"])
def test_exceptions_are_the_users(fallback):
    fast = convjit.compile(outer, fallback=fallback)
    for _ in range(2):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(LookupError, match=r"no such thing as \(1, 6, 6, 4\)") as caught:
                fast(image())
        frames = [f.name for f in traceback.extract_tb(caught.value.__traceback__)]
        assert frames[-2:] == ["outer", "fails_deep_inside"]
        assert caught.value.__cause__ is None and caught.value.__context__ is None


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, StopIteration, GeneratorExit, MemoryError])
def test_other_exceptions_pass(error):
    def plain(x):
        CONV(x)
        raise error

    with pytest.raises(error):
        convjit.compile(plain)(image())


def test_wrong_shapes_name_the_layer():
    net = Net()
    fast = fast_of(net)
    with pytest.raises(ValueError, match=r"conv2d 'conv': input has 5 channels but weight \(4, 3, 3, 3\) expects 3"):
        fast(image(1, 6, 6, 5))
    assert_close(fast(image()), net(image()))


def test_wrong_number_of_arguments():
    fast = fast_of(lambda x, w: mx.conv2d(x, w))
    for args in ((), (image(),), (image(), image(), image())):
        with pytest.raises(TypeError):
            fast(*args)
    with pytest.raises(TypeError, match="unexpected keyword argument 'stride'"):
        fast(image(), image(4, 3, 3, 3), stride=1)


def test_an_error_that_comes_and_goes():
    ready = False

    def plain(x):
        if not ready:
            raise RuntimeError("not ready")
        return CONV(x)

    fast = fast_of(plain)
    with pytest.raises(RuntimeError, match="not ready"):
        fast(image())
    ready = True
    assert_close(fast(image()), CONV(image()))
    assert num_kernels(fast) == 1
