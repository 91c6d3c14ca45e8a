"""Kernels prove themselves before they are trusted, and those that cannot are not used."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

import convjit
from convjit import proof
from convjit.backends import registry
from convjit.kernel import Kernel
from convjit.proof import trust
from examples.models import SMALL, ready


@pytest.fixture(autouse=True)
def fresh_verdicts(tmp_path, monkeypatch):
    """No verdict of an earlier run counts; kernels are compiled anew, too."""
    monkeypatch.setenv("CONVJIT_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(trust, "_failures", {})


@pytest.fixture
def net():
    return nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.SiLU(), nn.Conv2d(5, 4, 1)), mx.zeros((2, 7, 6, 3))


def faulty(load, damage, layer_channels):
    """A backend's `load` whose kernels of so many output channels give damaged results."""

    def load_damaged(stretch):
        run = load(stretch)
        convolutions = [c.kernel for c in stretch.calls if isinstance(c.kernel, Kernel)]
        if all(kernel.geometry.out_channels != layer_channels for kernel in convolutions):
            return run
        return lambda inputs: [mx.array(damage(np.array(y))) for y in run(inputs)]

    return load_damaged


def damaged(index):
    def damage(y):
        y[index] = y[index] + 0.5
        return y

    return damage


DAMAGES = {
    "everything": lambda y: y * 1.01,
    "first pixel": damaged((0, 0, 0)),
    "last pixel of the last image": damaged((-1, -1, -1)),
    "right border": damaged((slice(None), slice(None), -1)),
    "last channel": damaged((..., -1)),
    "never written": lambda y: np.full_like(y, np.nan),
    "last row never written": lambda y: np.concatenate([y[:, :-1], np.full_like(y[:, -1:], np.nan)], 1),
    "shifted": lambda y: np.roll(y, 1, axis=2),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_wrong_kernel_is_not_used(net, name, monkeypatch):
    model, x = net
    backend = registry.get("cpu")
    monkeypatch.setattr(backend, "load", faulty(backend.load, DAMAGES[name], 5))
    fast = convjit.compile(model)
    x = mx.random.normal(x.shape, key=mx.random.key(0))
    with pytest.warns(
        convjit.FallbackWarning,
        match=r"layers\.0 stays plain MLX: cpu/direct.c: its kernel gave .* sampled outputs wrong",
    ):
        y = fast(x)
    assert mx.allclose(y, model(x), rtol=1e-5, atol=1e-6)
    kernels = {row.layer: row.kernel for row in convjit.inspect.explain(fast).rows}
    assert kernels["layers.0"] == "plain MLX" and kernels["layers.2"].startswith("cpu/")


def test_zeros_as_the_first_input_prove_nothing(net, monkeypatch):
    """A warm-up call with zeros must not let a kernel through that only gets zeros right."""
    model, zeros = net
    for layer in (model.layers[0], model.layers[2]):
        layer.bias = mx.zeros(layer.bias.shape)
    backend = registry.get("cpu")
    monkeypatch.setattr(backend, "load", faulty(backend.load, lambda y: y * 2, 5))
    fast = convjit.compile(model, fallback="quiet")
    fast(zeros)
    assert "its kernel gave" in fast._last.reasons[0]


def test_each_kernel_is_proven_once_and_not_in_a_call(net, monkeypatch):
    model, x = net
    count = []
    monkeypatch.setattr(proof, "prove", lambda *arguments: count.append(arguments) or proof.Verdict())
    for _ in range(2):
        fast = convjit.compile(model)
        fast(x), fast(x + 1)
        monkeypatch.setattr(trust, "_failures", {})  # as in a new process: the verdict is on disk
    assert len(count) == 2


def test_a_kernel_that_cannot_run_is_not_used(net, monkeypatch):
    model, x = net
    backend = registry.get("cpu")
    load = backend.load

    def broken(stretch):
        if stretch.poisoned:
            raise RuntimeError("pipeline limit exceeded")
        return load(stretch)

    monkeypatch.setattr(backend, "load", broken)
    fast = convjit.compile(model, fallback="quiet")
    assert mx.allclose(fast(x), model(x))
    assert "pipeline limit exceeded" in fast._last.reasons[0]


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
@pytest.mark.parametrize("name", SMALL)
def test_right_kernels_pass(name, dtype):
    make, shape = SMALL[name]
    model = ready(make())
    model.set_dtype(dtype)
    fast = convjit.compile(model, fallback="error")
    mx.eval(fast(mx.zeros(shape, dtype)))
    assert not fast._last.notes, "a smaller schedule took the place of one that failed"
