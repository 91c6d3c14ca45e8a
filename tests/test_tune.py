"""Tuning: what is measured, what is chosen, what users see of it, and that nothing wrong gets in.

Time is a clock that kernels turn themselves, so that every outcome can be had on any machine.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest

import convjit
from convjit.backends import registry
from convjit.backends.metal import MetalBackend
from convjit.geometry import Geometry, plain_window
from convjit.kernel import Kernel, identity_epilogue
from convjit.proof import trust
from convjit.schedule import Schedule
from convjit.tuning import measure, plain, stopwatch

BACKEND = registry.get("cpu")
X = mx.random.normal((1, 9, 9, 16), key=mx.random.key(0))


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No verdict and no outcome of an earlier run counts."""
    monkeypatch.setenv("CONVJIT_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("CONVJIT_TUNE", raising=False)
    monkeypatch.setattr(trust, "_failures", {})


@pytest.fixture
def net() -> nn.Module:
    """Two kernels; the second one runs twice."""
    mx.random.seed(0)
    return nn.Sequential(
        nn.Conv2d(16, 80, 3), nn.MaxPool2d(2, 2), nn.Conv2d(80, 80, 3, padding=1), nn.Conv2d(80, 80, 3, padding=1)
    )


class Times:
    """Seconds of kernels, by schedule; of MLX's own op under None; `usual` for all others."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, backend: Any = BACKEND):
        self.now, self.usual, self.measured = 0.0, 1.0, 0
        self.of: dict[Schedule | None, float] = {None: 100.0}
        monkeypatch.setattr(stopwatch, "clock", lambda: self.now)
        load, own_op, measure_one = backend.load, plain.function, measure.measure

        def timed(run: Callable[..., Any], schedule: Schedule | None) -> Callable[..., Any]:
            def run_timed(arrays: Any) -> Any:
                self.now += self.of.get(schedule, self.usual)
                return run(arrays)

            return run_timed

        def count(*arguments: Any) -> Any:
            self.measured += 1
            return measure_one(*arguments)

        monkeypatch.setattr(backend, "load", lambda stretch: timed(load(stretch), stretch.calls[0].schedule))
        monkeypatch.setattr(plain, "function", lambda kernel: timed(own_op(kernel), None))
        monkeypatch.setattr(measure, "measure", count)


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> Times:
    return Times(monkeypatch)


def kernels(fast: Any) -> dict[str, tuple[Kernel, Schedule]]:
    return {layer: (kernel, schedule) for layer, kernel, schedule in convjit.inspect.kernels(fast)}


def notes(fast: Any) -> dict[str, str]:
    return {row.layer: row.note for row in convjit.inspect.explain(fast).rows}


def second_choice(fast: Any, layer: str) -> Schedule:
    return BACKEND.candidates(kernels(fast)[layer][0])[1]


def test_the_fastest_is_used_from_now_on(net: nn.Module, times: Times) -> None:
    fast = convjit.compile(net, fallback="error")
    fast(X)
    better = second_choice(fast, "layers.2")
    times.of[better] = 0.5
    tuning = convjit.tune(fast, X)
    assert [(row.layer, row.before, row.seconds) for row in tuning.rows] == [("layers.0", 1, 1), ("layers.2", 1, 0.5)]
    assert [row.own_op for row in tuning.rows] == [100, 100] and tuning.rows[1].kernel == better.in_words()
    assert mx.allclose(fast(X), net(X), rtol=1e-4, atol=1e-5)
    assert [kernels(fast)[layer][1] == better for layer in ("layers.0", "layers.2", "layers.3")] == [False, True, True]
    assert notes(fast)["layers.0"] == "tuned: 1,000 ms"
    assert notes(fast)["layers.3"] == "tuned: 500 ms, 1,000 ms before"
    assert times.measured == 2


def test_the_table(net: nn.Module, times: Times) -> None:
    fast = convjit.compile(net)
    text = str(convjit.tune(fast, X)).splitlines()
    assert text[0] == "Sequential: measured 2 kernels, changed 0: 2,000 -> 2,000 ms"
    assert text[1].split("  ")[0] == "layer" and text[3].startswith("layers.0  1x9x9x16 -> 7x7x80, k 3x3")


def test_later_functions_and_processes_know(net: nn.Module, times: Times) -> None:
    fast = convjit.compile(net)
    fast(X)
    better = second_choice(fast, "layers.0")
    times.of[better] = 0.5
    convjit.tune(fast, X)
    other = convjit.compile(net, tune=True)
    other(X)
    assert kernels(other)["layers.0"][1] == better and times.measured == 2


def test_not_used_if_the_environment_forbids(net: nn.Module, times: Times, monkeypatch: pytest.MonkeyPatch) -> None:
    convjit.tune(convjit.compile(net), X)
    monkeypatch.setenv("CONVJIT_TUNE", "0")
    fast = convjit.compile(net, tune=True)
    fast(X)
    assert not any("tuned" in note for note in notes(fast).values()) and times.measured == 2
    assert "no kernel was measured" in str(convjit.tune(fast, X))


@pytest.mark.parametrize("by", ["option", "environment"])
def test_at_the_first_call(by: str, net: nn.Module, times: Times, monkeypatch: pytest.MonkeyPatch) -> None:
    if by == "environment":
        monkeypatch.setenv("CONVJIT_TUNE", "1")
    fast = convjit.compile(net, tune=by == "option", fallback="error")
    fast(X), fast(X + 1)
    assert times.measured == 2 and notes(fast)["layers.2"] == "tuned: 1,000 ms"
    fast(mx.zeros((2, 9, 9, 16)))  # other kernels: measured for exactly their shapes
    assert times.measured == 4


def test_slightly_faster_changes_nothing(net: nn.Module, times: Times) -> None:
    fast = convjit.compile(net)
    fast(X)
    before = kernels(fast)
    times.of = {None: 0.95, second_choice(fast, "layers.2"): 0.95}
    convjit.tune(fast, X)
    assert kernels(fast) == before


def test_tuning_again_measures_again(net: nn.Module, times: Times) -> None:
    """Also what MLX's own op was chosen for, which is no kernel in the program any more."""
    fast = convjit.compile(net)
    times.of[None] = 0.1
    convjit.tune(fast, X)
    times.of[None] = 100.0
    assert len(convjit.tune(fast, X).rows) == 2
    assert set(kernels(fast)) == {"layers.0", "layers.2", "layers.3"}


def test_mlx_own_op_where_it_is_clearly_faster(net: nn.Module, times: Times) -> None:
    """Nothing to warn about, and no error: it is a choice."""
    fast = convjit.compile(net, fallback="error")
    times.of[None] = 0.5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tuning = convjit.tune(fast, X)
        assert mx.allclose(fast(X), net(X), rtol=1e-4, atol=1e-5)
    assert [row.kernel for row in tuning.rows] == ["plain MLX"] * 2
    assert notes(fast)["layers.0"] == "MLX's own op is faster here (500 ms / 1,000 ms)"
    assert convjit.inspect.explain(fast).reasons == ()


def test_what_stays_plain_leaves_other_kernels_to_the_rest(times: Times, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sum of two convolutions belongs to one of them. If that one becomes plain, the other is a new kernel."""

    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(16, 80, 3), nn.Conv2d(16, 80, 3)

        def __call__(self, x: mx.array) -> mx.array:
            return self.a(x) + self.b(x)

    seen: list[tuple[bool, str]] = []
    own_op = measure._own_op

    def choosy(kernel: Kernel, *arrays: Any) -> Any:
        is_sum = any(extra.shape == kernel.geometry.out_shape for extra in kernel.extras)
        times.of[None] = 0.1 if is_sum and not any(before for before, _ in seen) else 100.0
        seen.append((is_sum, repr(kernel)))
        return own_op(kernel, *arrays)

    monkeypatch.setattr(measure, "_own_op", choosy)
    fast, x = convjit.compile(Sum(), fallback="error"), mx.random.normal((1, 7, 7, 16))
    tuning = convjit.tune(fast, x)
    assert len(seen) == len(set(seen)) == len(tuning.rows) == 3
    ((kernel, _),) = kernels(fast).values()
    assert any(extra.shape == kernel.geometry.out_shape for extra in kernel.extras)
    assert mx.allclose(fast(x), fast._function(x), rtol=1e-4, atol=1e-5)


def test_mlx_own_op_is_not_measured_where_it_takes_too_long(
    net: nn.Module, times: Times, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "MAX_CPU_FLOPS", 1.1e6)  # 1.13 and 1.04 MFLOP
    tuning = convjit.tune(convjit.compile(net), X)
    assert [row.own_op for row in tuning.rows] == [None, 100]


def test_a_wrong_candidate_is_never_chosen(net: nn.Module, times: Times, monkeypatch: pytest.MonkeyPatch) -> None:
    """However fast it is."""
    fast = convjit.compile(net)
    fast(X)
    wrong = second_choice(fast, "layers.0")
    times.of[wrong] = 0.1
    load = BACKEND.load

    def damaged(stretch: Any) -> Any:
        run = load(stretch)
        if stretch.calls[0].schedule != wrong:
            return run
        return lambda inputs: [y * 1.5 for y in run(inputs)]

    monkeypatch.setattr(BACKEND, "load", damaged)
    tuning = convjit.tune(fast, X)
    assert all(row.before == row.seconds for row in tuning.rows)
    assert kernels(fast)["layers.0"][1] != wrong
    assert mx.allclose(fast(X), net(X), rtol=1e-4, atol=1e-5)


def test_what_mlx_cannot_do_has_no_peer(times: Times) -> None:
    geometry = Geometry.of_shapes((1, 3, 4, 4, 6), (6, 2, 2, 2, 3), plain_window(3, groups=2))
    kernel = Kernel(geometry, "f32", (), identity_epilogue("f32"), ("f32",))
    outcome = measure.measure(BACKEND, "conv", kernel)
    assert outcome and outcome.plain is None and outcome.ours.seconds == 1


def test_transformations(net: nn.Module, times: Times) -> None:
    """Gradients run on kernels, which are measured; where the original runs there are none."""
    fast = convjit.compile(net, tune=True)
    mx.eval(mx.compile(lambda x: fast(x))(X))
    assert times.measured == 0
    nn.value_and_grad(net, lambda x: fast(x).sum())(X)
    assert times.measured > 0


def test_classes_and_functions(times: Times) -> None:
    @convjit.compile
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(16, 8, 3)

        def __call__(self, x: mx.array) -> mx.array:
            return self.conv(x)

    @convjit.compile
    def function(x: mx.array, *, w: mx.array) -> mx.array:
        return mx.conv2d(x, w)

    assert [row.layer for row in convjit.tune(Net(), X).rows] == ["conv"]
    assert len(convjit.tune(function, X, w=mx.ones((8, 1, 1, 16))).rows) == 1
    with pytest.raises(TypeError, match="not a compiled function"):
        convjit.tune(len, X)


def test_nothing_to_measure(times: Times) -> None:
    fast = convjit.compile(lambda x: x + 1, fallback="quiet")
    assert convjit.tune(fast, X).rows == () and "no kernel was measured" in str(convjit.tune(fast, X))


def test_metal_kernels_by_the_simulator(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for a backend whose kernels are launched lazily; on its clock another tile is faster."""
    backend = registry.get("simulator")
    times = Times(monkeypatch, backend)
    fast = convjit.compile(nn.Conv2d(4, 8, 3), backend="simulator", fallback="error")
    x = mx.random.normal((1, 6, 6, 4))
    fast(x)
    ((_, _, first),) = convjit.inspect.kernels(fast)
    other = Schedule("metal/direct.metal", (("channels", 2), ("lanes", 4), ("pixels", 32)))
    assert other != first
    monkeypatch.setattr(MetalBackend, "candidates", lambda self, kernel: [first, other])
    times.of[other] = 0.5
    (row,) = convjit.tune(fast, x).rows
    assert row.ways == 3 and kernels(fast)["conv"][1] == other
    assert mx.allclose(fast(x), fast._function(x), rtol=1e-4, atol=1e-5)


def test_in_real_time(net: nn.Module) -> None:
    fast = convjit.compile(net, tune=True, fallback="error")
    assert mx.allclose(fast(X), net(X), rtol=1e-4, atol=1e-5)
    assert all(note.startswith(("tuned: ", "MLX's own op is faster here")) for note in notes(fast).values())
