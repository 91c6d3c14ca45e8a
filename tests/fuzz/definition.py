"""Convolutions in float64, from the definition, as MLX functions that can be differentiated: what everything else is
compared with. MLX itself has no convolution of float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from reference import Array, convolution

from convjit.geometry import Geometry, Window

NUMPY_MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


@dataclass(frozen=True)
class Noise:
    """Errors that a right kernel may make: of sums, and of the numbers that it stores, with random signs.

    Attributes:
        eps: half the distance from 1 to the next number of the storage type.
        sign: 1 or -1, to have the same errors the other way round.
        seed: what the signs depend on.
        every_step: is what each step behind a convolution gives stored, too?
    """

    eps: float
    sign: int
    seed: int
    every_step: bool

    def added(self, sums: Array, magnitude: Array, terms: int) -> Array:
        """The sums of `terms` products each, whose absolute values sum up to `magnitude`, with errors."""
        error = (4 + terms**0.5) * 2.0**-23 * magnitude + 2 * self.eps * np.abs(sums)
        error = np.where(np.isfinite(error), error, 0.0)
        return sums + self._signs(sums.shape, 0) * error

    def stored(self, y: mx.array, step: int) -> mx.array:
        """What step number `step` gives, and its cotangent or tangent, as if rounded."""
        if not self.every_step:
            return y
        value, other = (
            mx.array(1 + 2 * self.eps * self._signs(y.shape, n), dtype=mx.float64) for n in (2 * step, 2 * step + 1)
        )
        custom = mx.custom_function(lambda y: y * value)
        custom.vjp(lambda _y, cotangent, _output: cotangent * other)
        custom.jvp(lambda _y, tangent: tangent * other)
        return custom(y)

    def _signs(self, shape: tuple[int, ...], step: int) -> Array:
        return self.sign * np.random.default_rng([self.seed, step]).choice([-1.0, 1.0], shape)


_noise: list[Noise] = []


@contextmanager
def noisy(noise: Noise | None) -> Iterator[None]:
    """While this is entered, convolutions make the errors of `noise`."""
    _noise[:] = [noise] if noise else []
    try:
        yield
    finally:
        _noise.clear()


def stored(y: mx.array, step: int) -> mx.array:
    """What a step behind a convolution gives, with the errors of the noise that is entered."""
    for noise in _noise:
        y = noise.stored(y, step)
    return y


class BatchNorm(nn.BatchNorm):
    """MLX's, where noise rounds every step: where steps cancel, that leaves an error of any relative size
    and sign. The statistics are sums of float32 numbers, added up one after the other, as MLX does where the
    channels are last: where a channel is nearly constant, every addition rounds the same way."""

    _STEPS = (1000, 1001, 1002)
    """Not the numbers of any other steps, so that these have errors of their own."""

    def __call__(self, x: mx.array) -> mx.array:
        mean, variance = self.running_mean, self.running_var
        if self.training:
            mean, variance = self._calc_stats(x)
            _, unbiased = self._calc_stats(x, ddof=1)
            self.running_mean = (1 - self.momentum) * self.running_mean + self.momentum * mean
            self.running_var = (1 - self.momentum) * self.running_var + self.momentum * unbiased
        centred, normal, scaled = self._STEPS
        y = stored(stored(x - mean, centred) * mx.rsqrt(variance + self.eps), normal)
        return stored(self.weight * y, scaled) + self.bias

    def _calc_stats(self, x: mx.array, ddof: int = 0) -> tuple[mx.array, mx.array]:
        mean, variance = super()._calc_stats(x, ddof)
        for noise in _noise:
            rows = np.array(x).reshape(-1, x.shape[-1])
            with np.errstate(invalid="ignore"):
                deviations = rows - np.array(mean)
            mean += noise.sign * mx.array(_summing_error(rows), dtype=mx.float64) / len(rows)
            variance += noise.sign * mx.array(_summing_error(deviations * deviations), dtype=mx.float64) / len(rows)
        return mean, variance


def _summing_error(rows: Array) -> Array:
    """What the sums of columns (rows, columns) are off by, if each row is added to the ones before in float32."""
    with np.errstate(all="ignore"):
        error = np.add.accumulate(rows.astype(np.float32), dtype=np.float32)[-1] - rows.sum(0)
    return np.where(np.isfinite(error), error, 0.0)


def convolve(x: mx.array, w: mx.array, window: Window) -> mx.array:
    """The convolution of x (N, *spatial, C) with w (O, *kernel, C / groups), both float64 -> (N, *out, O)."""
    geometry = Geometry.of_shapes(x.shape, w.shape, window)
    terms = w[0].size

    def forward(x: mx.array, w: mx.array) -> mx.array:
        return _with_errors(terms, lambda x, w: convolution(geometry, x, w), x, w)

    def adjoints(primals: list[mx.array], cotangent: mx.array, _output: mx.array) -> tuple[mx.array, mx.array]:
        x, w = primals
        outputs = geometry.out_channels // window.groups * w[0, ..., 0].size
        return (
            _with_errors(outputs, lambda c, w: _input_gradient(geometry, c, w), cotangent, w),
            _with_errors(cotangent[..., 0].size, lambda x, c: _weight_gradient(geometry, x, c), x, cotangent),
        )

    def tangent(primals: list[mx.array], tangents: list[mx.array | None]) -> mx.array:
        (x, w), (dx, dw) = primals, tangents
        if dx is None or dw is None:
            return custom(x if dx is None else dx, w if dw is None else dw)
        return custom(dx, w) + custom(x, dw)

    custom = mx.custom_function(forward)
    custom.vjp(adjoints)
    custom.jvp(tangent)
    return custom(x, w)


def convolve_transposed(
    x: mx.array,
    w: mx.array,
    *,
    stride: tuple[int, ...],
    cuts: tuple[tuple[int, int], ...],
    dilation: tuple[int, ...],
    groups: int,
) -> mx.array:
    """Every input spreads its products from its place * stride on; then `cuts` outputs are taken off before and behind,
    or added as zeros where they are negative."""
    reach = tuple(d * (k - 1) for d, k in zip(dilation, w.shape[1:-1], strict=True))
    y = convolve(x, w, Window((1,) * len(stride), reach, reach, dilation, stride, groups, flip=True))
    y = mx.pad(y, [(0, 0), *((max(-a, 0), max(-b, 0)) for a, b in cuts), (0, 0)])
    kept = (slice(max(a, 0), n - max(b, 0)) for (a, b), n in zip(cuts, y.shape[1:-1], strict=True))
    return y[(slice(None), *kept)]


def padded(x: mx.array, pads: tuple[tuple[int, int], ...], mode: str) -> mx.array:
    """`x` with more elements around its spatial axes, those that NumPy takes."""
    if mode == "zeros":
        return mx.pad(x, [(0, 0), *pads, (0, 0)])
    for axis, pad in enumerate(pads, start=1):
        x = mx.take(x, mx.array(np.pad(np.arange(x.shape[axis]), pad, NUMPY_MODES[mode])), axis)
    return x


def _with_errors(terms: int, product: Callable[[Array, Array], Array], *operands: mx.array) -> mx.array:
    a, b = map(np.array, operands)
    with np.errstate(all="ignore"):
        sums = product(a, b)
        for noise in _noise:
            finite = np.where(np.isfinite(a), a, 1.0)
            sums = noise.added(sums, product(np.abs(finite), np.abs(b)), terms)
    return mx.array(sums, dtype=mx.float64)


@dataclass(frozen=True)
class _Taps:
    """The input with zeros between and around its elements, and where each tap meets it."""

    geometry: Geometry

    def spread(self, x: Array) -> Array:
        geometry = self.geometry
        spread = np.zeros((geometry.batch, *self._extents(), geometry.in_channels))
        spread[self._elements()] = x[self._kept()]
        return spread

    def gathered(self, spread: Array) -> Array:
        """The adjoint of `spread`."""
        x = np.zeros(self.geometry.in_shape)
        x[self._kept()] = spread[self._elements()]
        return x

    def __iter__(self) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...]]]:
        """A tap's place in a weight that is not mirrored, and the elements that it meets."""
        geometry, window = self.geometry, self.geometry.window
        for tap in np.ndindex(*geometry.kernel):
            met = tuple(
                slice(t * d, t * d + (n - 1) * s + 1, s)
                for t, d, n, s in zip(tap, window.kernel_dilation, geometry.out_size, window.strides, strict=True)
            )
            last = [k - 1 - t for k, t in zip(geometry.kernel, tap, strict=True)]
            yield tuple(last) if window.flip else tap, (slice(None), *met)

    def _extents(self) -> Iterator[int]:
        return iter(self.geometry.padded_size)

    def _first_kept(self) -> list[int]:
        """The first element along each axis that negative padding does not take off."""
        window = self.geometry.window
        return [max(0, -(lo // d)) for lo, d in zip(window.pad_lo, window.input_dilation, strict=True)]

    def _places(self) -> Iterator[tuple[int, int, int]]:
        """Along each axis: the first and last element kept, and the place of the first."""
        geometry, window = self.geometry, self.geometry.window
        axes = zip(geometry.in_size, window.pad_lo, window.input_dilation, self._extents(), strict=True)
        for (size, lo, d, extent), first in zip(axes, self._first_kept(), strict=True):
            last = min(size - 1, (extent - 1 - lo) // d)
            yield first, last, lo + first * d

    def _kept(self) -> tuple[slice, ...]:
        return (slice(None), *(slice(first, last + 1) for first, last, _ in self._places()))

    def _elements(self) -> tuple[slice, ...]:
        dilation = self.geometry.window.input_dilation
        places = zip(self._places(), dilation, strict=True)
        return (slice(None), *(slice(at, at + (last - first) * d + 1, d) for (first, last, at), d in places))


def _groups(geometry: Geometry) -> Iterator[tuple[slice, slice]]:
    """The input and the output channels of each group."""
    groups = geometry.window.groups
    inputs, outputs = geometry.in_channels // groups, geometry.out_channels // groups
    for g in range(groups):
        yield slice(g * inputs, (g + 1) * inputs), slice(g * outputs, (g + 1) * outputs)


def _input_gradient(geometry: Geometry, cotangent: Array, w: Array) -> Array:
    taps = _Taps(geometry)
    spread = taps.spread(np.zeros(geometry.in_shape))
    for tap, met in taps:
        for inputs, outputs in _groups(geometry):
            spread[(*met, inputs)] += cotangent[..., outputs] @ w[(outputs, *tap)]
    return taps.gathered(spread)


def _weight_gradient(geometry: Geometry, x: Array, cotangent: Array) -> Array:
    taps = _Taps(geometry)
    spread, w = taps.spread(x), np.zeros(geometry.weight_shape)
    for tap, met in taps:
        for inputs, outputs in _groups(geometry):
            seen, wanted = spread[(*met, inputs)], cotangent[..., outputs]
            w[(outputs, *tap)] = wanted.reshape(-1, wanted.shape[-1]).T @ seen.reshape(-1, seen.shape[-1])
    return w


def unpadded(window: Window) -> Window:
    none = (0,) * window.rank
    return replace(window, pad_lo=none, pad_hi=none)
