"""Rule 6: what the key of a call is made of, and trees of arrays in and out."""

import collections
import enum
import math
from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from checks import Net, assert_close, fast_of, image, num_kernels, reasons, small_conv

import convjit

CONV = small_conv()


class Pair(NamedTuple):
    x: mx.array
    scale: object


class Mode(enum.Enum):
    DOUBLE = 2
    SAME = 1


def described(value):
    """A number that tells `value` from everything that Python calls equal to it."""
    if isinstance(value, (float, complex, np.floating)):
        sign = math.copysign(1.0, value.real if isinstance(value, complex) else float(value))
        return {"nan": 100.0}.get(str(value), float(abs(value)) + 10.0) * sign
    return {int: 20.0, bool: 30.0}.get(type(value), 40.0) + float(value)


CONSTANTS = [
    1,
    True,
    1.0,
    0,
    False,
    0.0,
    -0.0,
    math.nan,
    -1,
    2**80,
    math.inf,
    -math.inf,
    np.float32(0.0),
    np.float32(-0.0),
    np.float64(0.0),
    np.float64(-0.0),
    np.int64(1),
    np.bool_(True),
    complex(1.0, 0.0),
    complex(0.0, 0.0),
    complex(-0.0, 0.0),
]


@pytest.mark.parametrize("wrap", [lambda v: v, lambda v: [v], lambda v: {"a": (v,)}], ids=["bare", "list", "tree"])
def test_constants_that_python_calls_equal_differ(wrap):
    x = image()

    def plain(x, tree):
        while isinstance(tree, (list, tuple, dict)):
            tree = tree["a"] if isinstance(tree, dict) else tree[0]
        return CONV(x) + min(described(tree), 1e6)

    fast = fast_of(plain)
    for _ in range(2):
        for value in CONSTANTS:
            assert_close(fast(x, wrap(value)), plain(x, wrap(value)))
    assert len(fast._entries) == len(CONSTANTS)


def test_nan_equals_itself():
    fast, x = fast_of(lambda x, value: CONV(x)), image()
    for value in (math.nan, float("nan"), np.float64("nan"), complex("nan")):
        for _ in range(3):
            fast(x, value)
    assert len(fast._entries) == 3


@pytest.mark.parametrize("value", ["relu", "", None, Mode.DOUBLE, b"relu", mx.float16, range(3), frozenset({1}), ...])
def test_hashable_constants(value):
    class Seen:
        pairs = []

    def plain(x, mode, *, again=None):
        Seen.pairs.append((mode, again))
        return nn.relu(CONV(x)) if mode == "relu" else CONV(x)

    fast, x = fast_of(plain), image()
    assert_close(fast(x, value, again=value), plain(x, value, again=value))
    assert all(pair == (value, value) for pair in Seen.pairs)


@pytest.mark.parametrize("value", [{1, 2}, np.ones(3), bytearray(b"1"), [{1}], {"a": np.ones(2)}])
def test_unhashable_arguments_raise(value):
    fast = convjit.compile(lambda x, value: CONV(x))
    with pytest.raises(TypeError, match=r"convjit.compile: an argument of type .* is neither an array"):
        fast(image(), value)


@pytest.mark.parametrize(
    "value", [iter([1.0]), map(float, [1, 2]), (n for n in (1.0, 2.0))], ids=lambda v: type(v).__name__
)
def test_iterators_raise(value):
    """A capture would use them up."""
    fast = convjit.compile(lambda x, values: [CONV(x) * v for v in values])
    with pytest.raises(TypeError, match=rf"an argument of type {type(value).__name__} can be read only once"):
        fast(image(), value)
    assert next(value) == 1.0


def test_an_iterator_outside_is_read_once_a_call():
    scales, x = iter([1.0, 2.0, 3.0]), image()
    fast = convjit.compile(lambda x: CONV(x) * next(scales), fallback="quiet")
    for scale in (1.0, 2.0, 3.0):
        assert_close(fast(x), CONV(x) * scale)
    assert "'scales', an iterator" in reasons(fast)


def test_keyword_arguments_in_any_order():
    def plain(x, /, a, *, b, c=3.0):
        return CONV(x) * a - b * c

    fast, x, b = fast_of(plain), image(), image(4, seed=8)
    for call in (lambda f: f(x, 2.0, b=b), lambda f: f(x, a=2.0, b=b), lambda f: f(x, b=b, a=2.0)):
        assert_close(call(fast), call(plain))
    assert_close(fast(x, c=b, b=2.0, a=1.0), plain(x, 1.0, b=2.0, c=b))
    assert_close(fast(x, b=2.0, c=b, a=1.0), plain(x, 1.0, b=2.0, c=b))
    with pytest.raises(TypeError, match="missing 1 required keyword-only argument: 'b'"):
        fast(x, 1.0)


def test_arrays_may_swap_places():
    """The same arrays in another position, or under another name, are another program."""

    def plain(a, b, c=None):
        return CONV(a) * 2 + (b if c is None else b * c)

    fast, x, y = fast_of(plain), image(), image(1, 6, 6, 4)
    assert_close(fast(x, y), plain(x, y))
    assert_close(fast(b=y, a=x), plain(x, y))
    assert_close(fast(x, c=y, b=2.0), plain(x, 2.0, y))
    assert_close(fast(x, b=y, c=2.0), plain(x, y, 2.0))


TREES = {
    "list": lambda y, z: [y, z],
    "tuple": lambda y, z: (y, z),
    "named tuple": lambda y, z: Pair(y, z),
    "dict": lambda y, z: {"z": z, "a": y},
    "nested": lambda y, z: {"a": [y, {"b": (z,), "c": []}], 1: (), "n": None},
    "plain values": lambda y, z: [y, 1, 2.5, True, None, "text", b"b", mx.float16, 1j],
    "the same twice": lambda y, z: (y, y, [z, y]),
    "one": lambda y, z: y,
    "one in a list": lambda y, z: [y],
}


@pytest.mark.parametrize("name", TREES)
def test_result_trees(name):
    def plain(x):
        y = CONV(x)
        return TREES[name](y, nn.relu(y))

    fast, x = fast_of(plain), image()
    for _ in range(2):
        assert_close(fast(x), plain(x))
    if isinstance(fast(x), dict):
        assert list(fast(x)) == list(plain(x))


def test_each_call_returns_new_containers():
    fast, x = fast_of(lambda x: {"a": [CONV(x)]}), image()
    first = fast(x)
    first["a"].append(1)
    first["b"] = 2
    assert_close(fast(x), {"a": [CONV(x)]})


@pytest.mark.parametrize(
    "result",
    [lambda y: collections.defaultdict(list, y=y), lambda y: {y}, lambda y: iter([y]), lambda y: nn.Sequential()],
)
def test_other_results_are_those_of_the_plain_function(result):
    fast, x = convjit.compile(lambda x: result(CONV(x)), fallback="quiet"), image()
    for _ in range(2):
        assert type(fast(x)) is type(result(CONV(x)))
    assert "it returns an object of type" in reasons(fast)


def test_argument_trees():
    def plain(tree, *more, **named):
        y = CONV(tree["x"][0]) * tree["x"][1].scale + more[0][0]
        return {"y": y, "rest": [m * 2 for m in named["rest"]]}

    x, y = image(), image(1, 6, 6, 4)
    for scale in (2.0, y):
        fast = fast_of(plain)
        args = ({"x": (x, Pair(x, scale))}, [y, None])
        for _ in range(2):
            assert_close(fast(*args, rest=(x, y)), plain(*args, rest=(x, y)))
            assert_close(fast(*args, rest=[]), plain(*args, rest=[]))


def test_dicts_with_other_keys_or_order():
    def plain(parameters):
        y = 0.0
        for n, name in enumerate(parameters):
            y = y + CONV(parameters[name]) * (n + 1)
        return y

    fast, a, b = fast_of(plain), image(seed=1), image(seed=2)
    for parameters in ({"a": a, "b": b}, {"b": b, "a": a}, {"a": a, "c": b}, {"a": a}, {0: a, "0": b}):
        assert_close(fast(parameters), plain(parameters))


def test_a_dict_argument_that_the_function_changes():
    def plain(tree):
        tree["x"] = tree["x"] * 2
        tree["new"] = CONV(tree["x"])
        return nn.relu(tree.pop("new"))

    fast = convjit.compile(plain, fallback="quiet")
    for seed in range(3):
        ours, theirs = {"x": image(seed=seed)}, {"x": image(seed=seed)}
        assert_close(fast(ours), plain(theirs))
        assert_close(ours, theirs)


def test_signatures_side_by_side():
    net = Net()
    fast = fast_of(net)
    shapes = [(1, 6, 6, 3), (2, 6, 6, 3), (5, 6, 6, 3), (1, 7, 9, 3), (1, 1, 1, 3), (1, 6, 6, 3)]
    for _ in range(2):
        for n, shape in enumerate(shapes):
            x = image(*shape, seed=n)
            assert_close(fast(x), net(x))
    assert len(fast._entries) == 5
    with pytest.raises(ValueError, match="input has 4 channels"):
        fast(image(1, 6, 6, 4))
    assert_close(fast(x), net(x))


def test_dtypes_side_by_side():
    fast, x = convjit.compile(CONV, fallback="quiet"), image()
    for _ in range(2):
        for dtype in (mx.float32, mx.float16, mx.bfloat16, mx.float32):
            assert_close(fast(x.astype(dtype)), CONV(x.astype(dtype)), rtol=1e-5)
    assert len(fast._entries) == 3


def test_a_python_branch_on_shape_and_constant():
    def plain(x, deep=False):
        y = CONV(x)
        return CONV(y[..., :3]) if deep or x.shape[0] > 1 else y

    fast, x = fast_of(plain), image()
    for args in ((x,), (x, True), (image(2, 6, 6, 3),), (x, False), (x,)):
        assert_close(fast(*args), plain(*args))
    assert num_kernels(fast) in (1, 2)


def test_scalars_and_empty_inputs():
    fast, x = convjit.compile(lambda x, s: CONV(x) * s, fallback="quiet"), image()
    for s in (mx.array(2.0), mx.array([3.0]), mx.array(4), mx.array(True), 5.0):
        assert_close(fast(x, s), CONV(x) * s)
    empty = mx.zeros((1, 6, 6, 4))[:, :0]
    with_empty = convjit.compile(lambda x, e: (CONV(x), e * 2), fallback="quiet")
    assert_close(with_empty(x, empty), (CONV(x), empty * 2))


def test_no_arguments_at_all():
    x = image()
    fast = fast_of(lambda: nn.relu(CONV(x)))
    for _ in range(2):
        assert_close(fast(), nn.relu(CONV(x)))
