"""What the layers must compute, in float64, from arguments that are written out: (before, after) for each axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt
from reference import convolution

from convjit.geometry import Geometry, Window

Array = npt.NDArray[np.float64]

NUMPY_MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


@dataclass(frozen=True)
class Definition:
    """A convolution of x (N, *spatial, C) with w (O, *kernel, C / groups); the padding of a transposed one cuts."""

    pads: tuple[tuple[int, int], ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1
    mode: str = "zeros"
    transposed: bool = False

    def __call__(self, x: npt.ArrayLike, w: npt.ArrayLike) -> Array:
        x, w = np.asarray(x, np.float64), np.asarray(w, np.float64)
        return self._scatter(x, w) if self.transposed else self._gather(x, w)

    def _gather(self, x: Array, w: Array) -> Array:
        x = np.pad(x, [(0, 0), *self.pads, (0, 0)], NUMPY_MODES[self.mode])
        none, one = (0,) * len(self.pads), (1,) * len(self.pads)
        window = Window(self.stride, none, none, self.dilation, one, self.groups)
        return convolution(Geometry.of_shapes(x.shape, w.shape, window), x, w)

    def _scatter(self, x: Array, w: Array) -> Array:
        """Every input adds its products to the outputs from its place * stride on; then the ends are cut."""
        size, kernel = x.shape[1:-1], w.shape[1:-1]
        axes = list(zip(size, kernel, self.stride, self.dilation, strict=True))
        y = np.zeros((x.shape[0], *((n - 1) * s + d * (k - 1) + 1 for n, k, s, d in axes), w.shape[0]))
        inputs, outputs = w.shape[-1], w.shape[0] // self.groups
        for tap in np.ndindex(*kernel):
            hit = [slice(t * d, t * d + (n - 1) * s + 1, s) for t, (n, _, s, d) in zip(tap, axes, strict=True)]
            for g in range(self.groups):
                into, out_of = slice(g * outputs, (g + 1) * outputs), slice(g * inputs, (g + 1) * inputs)
                y[(slice(None), *hit, into)] += x[..., out_of] @ w[(into, *tap)].T
        y = np.pad(y, [(0, 0), *((0, max(-after, 0)) for _, after in self.pads), (0, 0)])
        kept = [slice(a, n - max(b, 0)) for (a, b), n in zip(self.pads, y.shape[1:-1], strict=True)]
        return y[(slice(None), *kept)]


def define(*pads: tuple[int, int], stride: Any = 1, dilation: Any = 1, **others: Any) -> Definition:
    """A definition; an int holds for every axis."""
    stride, dilation = ((v,) * len(pads) if isinstance(v, int) else v for v in (stride, dilation))
    return Definition(pads, stride, dilation, **others)


def weight_and_input(layer: nn.Module, shape: tuple[int, ...], seed: int) -> tuple[Array, Array]:
    """Gives `layer` random parameters, and returns its weight and an input of `shape` in its own layout."""
    random = np.random.default_rng(seed)
    for name, array in layer.parameters().items():
        layer[name] = mx.array(random.standard_normal(array.shape).astype(np.float32))
    return np.array(layer.weight, np.float64), random.standard_normal(shape).astype(np.float32)
