"""Timing by a clock that the timed things turn themselves."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import pytest

from convjit.tuning import stopwatch

X = mx.zeros((2, 3))


class Clock:
    def __init__(self) -> None:
        self.now = 0.0
        self.runs: list[str] = []

    def way(self, name: str, *durations: float) -> Callable[[mx.array], list[mx.array]]:
        """A way that takes these times, the last one again and again."""
        left = list(durations)

        def run(x: mx.array) -> list[mx.array]:
            self.runs.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]
            return [x + 1]

        return run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(stopwatch, "clock", lambda: clock.now)
    return clock


def test_first_runs_do_not_count(clock: Clock) -> None:
    ways = {"a": clock.way("a", 9.0, 1.0), "b": clock.way("b", 50.0, 1.5)}
    assert stopwatch.race(ways, X) == {"a": (1.0, 1.0), "b": (1.5, 1.5)}


def test_ways_take_turns(clock: Clock) -> None:
    stopwatch.race({"a": clock.way("a", 1.0), "b": clock.way("b", 1.1)}, X)
    assert clock.runs[-6:] == ["a", "b"] * 3


def test_an_outlier_does_not_count(clock: Clock) -> None:
    ways = {"a": clock.way("a", *[0.1] * 5, 7.0, 0.1), "b": clock.way("b", 0.15)}
    assert stopwatch.race(ways, X)["a"] == pytest.approx((0.1, 0.1))


def test_the_fastest_is_that_of_all_rounds(clock: Clock) -> None:
    ways = {"a": clock.way("a", *[0.1] * 6, 0.05, 0.1)}
    assert stopwatch.race(ways, X)["a"] == pytest.approx((0.1, 0.05))


def test_the_hopeless_are_given_up_but_never_the_first(clock: Clock) -> None:
    ways = {"first": clock.way("first", 2.0), "best": clock.way("best", 0.2), "bad": clock.way("bad", 0.5)}
    medians = {name: seconds.median for name, seconds in stopwatch.race(ways, X).items()}
    assert medians == pytest.approx({"first": 2.0, "best": 0.2, "bad": 0.5})
    assert clock.runs.count("bad") == 3 < clock.runs.count("first") == clock.runs.count("best")


def test_the_short_run_in_chains(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: each run of a chain waits for the one before."""
    monkeypatch.setattr(stopwatch, "_max_chain", lambda: 32)
    seen: list[float] = []

    def run(x: mx.array) -> list[mx.array]:
        seen.append(x[0, 0].item())
        clock.now += 1e-3
        return [x + 1]

    assert stopwatch.race({"a": run}, X)["a"] == pytest.approx((1e-3, 1e-3))
    assert seen[-5:] == [0, 1, 2, 3, 4]
    assert mx.array_equal(X, mx.zeros((2, 3)))
