"""Engines that are ready to run something, and why others are not."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import numpy as np

from benchmarks.layers.network import Array, Refused, Way


class Engines:
    """The engines that are ready to run a network, by name, and why others are not."""

    def __init__(self) -> None:
        self.ways: dict[str, Way] = {}
        self.refused: dict[str, str] = {}

    def add(self, name: str, make: Callable[[], Way], accept: Callable[[Way], None] = lambda way: None) -> None:
        """Make a way and try it. What either raises is why there is none."""
        try:
            way = make()
            way.run()
            accept(way)
        except Exception as error:  # engines have exceptions of all kinds
            self.refused[name] = in_short(error)
            return
        self.ways[name] = way


def mlx_way(function: Callable[[mx.array], mx.array], x: mx.array) -> Way:
    """A function of MLX's, plain or compiled: an MLX array in, an evaluated one out."""
    mx.eval(x)

    def run() -> mx.array:
        y = function(x)
        mx.eval(y)
        return y

    def output() -> Array:
        return np.array(run().astype(mx.float32))

    return Way(run, output)


def compare(actual: Array, expected: Array, allowed: float) -> float:
    """The largest difference, over the largest magnitude of `expected`.

    Raises:
        Refused: if it is more than `allowed`, or the shape is another.
    """
    if actual.shape != expected.shape:
        raise Refused(f"its result is {actual.shape} instead of {expected.shape}")
    apart = float(np.abs(actual - expected).max() / np.abs(expected).max())
    if not apart <= allowed:
        raise Refused(f"its result is another: {apart:.1e} apart")
    return apart


def in_short(error: Exception) -> str:
    """A line for an engine that fails."""
    return " ".join(f"{error}".split())[:160] or type(error).__name__
