"""Random programs, and networks that change between calls: a fixed sample here, as many as wanted by `make fuzz`.

A failing test names its seed and number: `FUZZ_SEED=<seed> FUZZ_FIRST=<number> FUZZ_COUNT=1 pytest tests/fuzz` runs it
again.
"""

import gc
import os

import mlx.core as mx
import numpy as np
import pytest
from judge import complaints
from mlx.utils import tree_flatten
from random_networks import CHANGES, batch_norms, random_network
from random_programs import Program, random_program

import convjit

SEED = int(os.environ.get("FUZZ_SEED", "1"))
FIRST = int(os.environ.get("FUZZ_FIRST", "0"))
COUNT = int(os.environ.get("FUZZ_COUNT", "0"))


def numbered(small: int, every: int = 1):
    """Runs a test for `small` numbers, or for every so many-th of FUZZ_COUNT."""
    numbers = [n for n in range(FIRST, FIRST + COUNT) if n % every == 0] if COUNT else range(small)
    return pytest.mark.parametrize("number", numbers, ids=[f"{SEED}-{n}" for n in numbers])


@numbered(40)
def test_program(number, guard_memory):
    program = random_program(np.random.default_rng([SEED, number]))
    guard_memory(at_end=number % 2 == 0)
    if found := complaints(program):
        pytest.fail("\n".join([f"{program}", *found]))


@pytest.mark.parametrize("number", range(0 if COUNT else 12))
def test_the_judge_finds_what_is_wrong(number, monkeypatch):
    """One number of one result, off by a three-hundredth of the largest, by a fifth in half precision."""
    rng = np.random.default_rng([1, number])
    program = random_program(rng)
    run = Program.run

    def faulty(self, *, plain=False):
        results = run(self, plain=plain)
        if not plain:
            result = results[rng.integers(len(results))]
            finite = np.flatnonzero(np.isfinite(result))
            off = np.abs(result.flat[finite]).max() * (0.003 if program.dtype == "f32" else 0.2)
            result.flat[rng.choice(finite)] += max(off, 1e-3)
        return results

    monkeypatch.setattr(Program, "run", faulty)
    assert complaints(program)


@numbered(4, every=50)
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


def to_float64(array):
    return np.array(array.astype(mx.float32)).astype(np.float64)


def assert_same(actual, expected, history):
    a, b = tree_flatten(actual), tree_flatten(expected)
    assert [name for name, _ in a] == [name for name, _ in b]
    for (name, one), (_, other) in zip(a, b, strict=True):
        assert one.shape == other.shape and one.dtype == other.dtype, (name, history)
        y, z = to_float64(one), to_float64(other)
        largest = float(np.abs(z).max(initial=0.0))
        np.testing.assert_allclose(y, z, rtol=3e-5, atol=3e-5 * largest + 1e-7, err_msg=f"{name} after {history}")
