"""`raise-gather`: whatever indices constants tell, as few runs; upsampled networks are one stretch."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from graphs import traced
from test_pools import break_kernels

import convjit
from convjit import passes
from convjit.ir import reference
from convjit.kernel import Rearrange
from convjit.passes.runs import runs_of
from convjit.proof import trust
from convjit.tracing.trace import Argument

TOLERANCE = {mx.float32: 1e-5, mx.float16: 4e-3, mx.bfloat16: 3e-2}


def spread(indices: list[int]) -> list[int]:
    """What the runs of `indices` say."""
    found = [-1] * len(indices)
    for at, period, first, step, length, repeat in runs_of(indices):
        for n in range(length):
            for r in range(repeat):
                found[at + period * (n * repeat + r)] = first + n * step
    return found


@pytest.mark.parametrize("seed", range(100))
def test_runs_are_the_indices(seed: int):
    rng = np.random.default_rng(seed)
    length, extent = int(rng.integers(1, 60)), int(rng.integers(1, 30))
    evenly = np.arange(length) * rng.choice([0.25, 0.4, 2 / 3, 1, 1.5, 2, 3]) + rng.uniform(-1, 1)
    kinds = [rng.integers(0, extent, length), np.clip(np.floor(evenly), 0, extent - 1), np.arange(length)[::-1]]
    indices = [int(n) for n in kinds[seed % 3]]
    assert spread(indices) == indices


def test_there_are_few_runs():
    assert len(runs_of([0, 0, 0, 1, 1, 2, 2, 3])) == 3
    assert len(runs_of([n * 2 // 3 for n in range(300)])) == 3
    assert len(runs_of([n * 3 // 8 for n in range(300)])) <= 8
    assert runs_of([7]) == [(0, 1, 7, 0, 1, 1)]
    assert len(runs_of([3, 2, 1, 0, 1, 2, 3, 4, 3, 2, 1])) == 3


class Up(nn.Module):
    def __init__(self, rank: int = 2, **options):
        super().__init__()
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]
        self.conv1, self.conv2 = conv(3, 8, 3, padding=1), conv(8, 4, 3)
        self.up = nn.Upsample(**options)

    def __call__(self, x: mx.array) -> mx.array:
        return self.conv2(nn.relu(self.up(self.conv1(x))))


UPSAMPLED: dict[str, tuple[Callable[[], Up], tuple[int, ...]]] = {
    "linear": (lambda: Up(scale_factor=2.0, mode="linear"), (1, 7, 6, 3)),
    "linear, two images": (lambda: Up(scale_factor=(2.0, 4.0), mode="linear"), (2, 7, 6, 3)),
    "linear, corners": (lambda: Up(scale_factor=2.0, mode="linear", align_corners=True), (2, 7, 6, 3)),
    "linear, 3 / 2": (lambda: Up(scale_factor=1.5, mode="linear"), (1, 40, 6, 3)),
    "linear, smaller": (lambda: Up(scale_factor=0.5, mode="linear"), (1, 8, 10, 3)),
    "nearest, 5 / 2": (lambda: Up(scale_factor=2.5), (1, 7, 6, 3)),
    "cubic": (lambda: Up(scale_factor=2.0, mode="cubic"), (1, 7, 6, 3)),
    "linear 1D": (lambda: Up(1, scale_factor=3.0, mode="linear"), (2, 11, 3)),
    "linear 3D": (lambda: Up(3, scale_factor=2.0, mode="linear"), (1, 3, 4, 5, 3)),
}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", UPSAMPLED)
def test_an_upsampled_network_is_one_stretch(name: str, dtype: mx.Dtype):
    mx.random.seed(3)
    build, shape = UPSAMPLED[name]
    net, x = build(), mx.random.normal(shape)
    want = net(x)
    net.set_dtype(dtype)
    fast = convjit.compile(net, fallback="error")
    got = fast(x.astype(dtype))
    assert (got.shape, got.dtype) == (want.shape, net(x.astype(dtype)).dtype)  # floats, but for the nearest
    np.testing.assert_allclose(got.astype(mx.float32), want, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    ir = convjit.inspect.ir(fast).partition("@forward")[2]
    assert '"Gather"' not in ir
    if dtype == mx.float32:
        assert ir.count("conv.stretch(") == 1 and "mlx.primitive" not in ir


def test_the_pass_keeps_the_meaning():
    arrays = [mx.random.normal(s, key=mx.random.key(3)) for s in ((2, 5, 4, 3), (2, 1, 1, 3))]

    def function(x: mx.array, w: mx.array) -> list[mx.array]:
        rows = mx.clip(mx.arange(9) - 2, 0, 4)
        diagonal = mx.arange(1, 4)
        return [mx.conv_general(x, w)[:, rows], x[:, :, mx.arange(8).reshape(2, 4) // 2], x[:, diagonal, diagonal]]

    module = traced(function, arrays, [Argument("x", "input"), Argument("w", "parameter")])
    passes.run(module, "raise-conv,raise-gather")
    module.verify()
    assert str(module).count("conv.rearrange(") == 3 and '"Gather"' not in str(module)
    for got, want in zip(reference.run(module, arrays), function(*arrays), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


STAYING: dict[str, Callable[[mx.array, mx.array], mx.array]] = {
    "indices of an input": lambda x, places: x[:, places],
    "a table of products": lambda x, places: x[:, mx.arange(3)[:, None] * mx.arange(3)],
    "indices without order": lambda x, places: x[:, mx.arange(200) ** 2 % 101 % 7],
}


@pytest.mark.parametrize("name", STAYING)
def test_what_stays(name: str):
    x, w, places = mx.random.normal((1, 7, 4, 3)), mx.random.normal((2, 1, 1, 3)), mx.array([3, 1, 6])

    def function(x: mx.array, w: mx.array, places: mx.array) -> mx.array:
        return STAYING[name](mx.conv2d(x, w), places)

    fast = convjit.compile(function)
    np.testing.assert_allclose(fast(x, w, places), function(x, w, places), rtol=1e-5, atol=1e-5)
    assert '"Gather"' in convjit.inspect.ir(fast)


def test_long_chains_of_indices():
    """Longer than Python's own stack is deep: constants, and what an input tells."""
    x, w = mx.random.normal((1, 7, 4, 3)), mx.random.normal((2, 1, 1, 3))

    def function(x: mx.array, w: mx.array) -> list[mx.array]:
        known, unknown, y = mx.arange(4), x[0, :4, 0, 0], mx.conv2d(x, w)
        for _ in range(400):
            known, unknown = (known * 3 + 1) % 4, mx.abs(unknown - 0.5)
        return [y[:, known], y[:, unknown.astype(mx.int32)]]

    fast = convjit.compile(function, fallback="error")
    for got, want in zip(fast(x, w), function(x, w), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    assert convjit.inspect.ir(fast).count('"Gather"') == 1


def test_only_the_cpu_has_kernels_for_gathers():
    assert "raise-gather" in passes.pipeline_for("cpu")
    assert not any("raise-gather" in passes.pipeline_for(backend) for backend in ("metal", "simulator"))


def test_a_wrong_rearrangement_leaves_gathers_to_mlx(monkeypatch, tmp_path):
    monkeypatch.setenv("CONVJIT_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(trust, "_failures", {})
    break_kernels(monkeypatch, lambda kernel: isinstance(kernel, Rearrange))
    build, shape = UPSAMPLED["linear"]
    net, x = build(), mx.random.normal(shape)
    fast = convjit.compile(net)
    with pytest.warns(convjit.FallbackWarning, match="gather stays plain MLX: .* its kernel gave "):
        got = fast(x)
    np.testing.assert_allclose(got, net(x), rtol=1e-5, atol=1e-5)
    ir = convjit.inspect.ir(fast)
    assert "conv.rearrange" not in ir and ir.count('"Gather"') == 4


def test_gradients_go_through():
    build, shape = UPSAMPLED["linear"]
    net, x = build(), mx.random.normal(shape)
    fast = convjit.compile(net, fallback="error")
    got, want = (mx.grad(lambda x, call=call: mx.square(call(x)).sum())(x) for call in (fast, net))
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
