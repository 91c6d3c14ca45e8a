"""Random convolutions and random networks: a small fixed sample of them here, as many as wanted by `make fuzz`.

A failing test names its seed and number: FUZZ_SEED=<seed> python -m pytest tests/fuzz -k <name>-<seed>-<number>.
"""

import gc
import os

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from random_convolutions import random_case
from random_networks import CHANGES, batch_norms, random_network

import convjit
from convjit.backends.cpu import stretch

SEED = int(os.environ.get("FUZZ_SEED", "1"))
COUNT = int(os.environ.get("FUZZ_COUNT", "0"))


@pytest.fixture(scope="module", autouse=True)
def all_threads(tmp_path_factory):
    """Kernels run on all threads, however small they are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONVJIT_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(stretch, "FLOPS_PER_THREAD", 1)
        yield


def numbered(small: int):
    """Runs a test for the numbers of its random cases: `small` of them, or FUZZ_COUNT."""
    numbers = range(COUNT or small)
    return pytest.mark.parametrize("number", numbers, ids=[f"{SEED}-{n}" for n in numbers])


def to_float64(array):
    return np.array(array.astype(mx.float32)).astype(np.float64)


@numbered(20)
def test_convolution(number):
    case = random_case(np.random.default_rng([SEED, number]))
    fast = convjit.compile(case.call, backend="cpu", fallback="error")
    for actual, (expected, tolerance) in zip(fast(*case.arrays()), case.expected(), strict=True):
        assert actual.shape == expected.shape, case
        y = to_float64(actual)
        with np.errstate(invalid="ignore"):
            right = (y == expected) | (np.isnan(y) & np.isnan(expected)) | (np.abs(y - expected) <= tolerance)
        right |= np.isinf(tolerance)
        wrong = np.argwhere(~right)
        if len(wrong):
            at = tuple(wrong[0])
            pytest.fail(f"{case}: {len(wrong)} of {y.size} are wrong; at {at} {y[at]}, not {expected[at]}")


@numbered(5)
def test_network(number):
    """Calls of several signatures with changes between them, each compared with plain MLX, written state too."""
    rng = np.random.default_rng([SEED, number])
    mx.random.seed(SEED + number)
    channels = int(rng.choice([1, 3, 4]))
    network = random_network(rng, channels)
    fast = convjit.compile(network, backend="cpu", fallback="error")
    images = [mx.random.normal((*shape, channels)) for shape in ((1, 9, 9), (2, 11, 8))]
    history = []
    for _ in range(5):
        x = images[int(rng.integers(2))]
        norms = batch_norms(network)
        before = [(norm.running_mean, norm.running_var) for norm in norms]
        expected = [network(x), [(norm.running_mean, norm.running_var) for norm in norms]]
        mx.eval(expected)
        for norm, (mean, variance) in zip(norms, before, strict=True):
            norm.running_mean, norm.running_var = mean, variance
        actual = [fast(x), [(norm.running_mean, norm.running_var) for norm in norms]]
        assert_same(actual, expected, history)
        for change in rng.choice(np.array(CHANGES, object), int(rng.integers(0, 4))):
            change(network, rng)
            history.append(change.__name__)
        if rng.random() < 0.3:
            gc.collect()


def assert_same(actual, expected, history):
    a, b = tree_flatten(actual), tree_flatten(expected)
    assert [name for name, _ in a] == [name for name, _ in b]
    for (name, one), (_, other) in zip(a, b, strict=True):
        assert one.shape == other.shape and one.dtype == other.dtype, (name, history)
        y, z = to_float64(one), to_float64(other)
        largest = float(np.abs(z).max(initial=0.0))
        np.testing.assert_allclose(y, z, rtol=3e-5, atol=3e-5 * largest + 1e-7, err_msg=f"{name} after {history}")
