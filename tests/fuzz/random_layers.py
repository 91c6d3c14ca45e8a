"""Random convolutions by every function and layer that MLX and convjit have, and what each must compute.

Never drawn, because MLX 0.32 itself is wrong there or because it is refused:

what                                                         | why
-------------------------------------------------------------|------------------------------------------------------
MLX's transposed ones with padding > dilation (k - 1)        | MLX crops the input before it spreads it
`mx.conv_general` with negative padding and input dilation   | the same
negative padding that leaves nothing of an axis              | all is zero; see tests/semantics/test_empty_inputs.py
input dilation and gradients: padding > dilation (k - 1)     | MLX's gradient by the input has another shape
input dilation and gradients: strides                        | MLX's gradient by the weight has another shape
groups and gradients: windows that meet nothing but padding  | the same
groups in `mlx.nn.Conv3d` and `mlx.nn.ConvTranspose*`        | MLX has none
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from definition import convolve, convolve_transposed, padded, unpadded

import convjit
from convjit.geometry import Geometry, GeometryError, Window
from convjit.nn.convolution import sides
from convjit.nn.transposed import cut

Product = Callable[[mx.array, mx.array], mx.array]
Ints = tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """A convolution.

    Attributes:
        words: how it is called.
        make: a new module with a parameter `weight`; it takes and gives channels first if `channels_first`.
        define: (x, weight), channels last and as `make` has it -> the sums in float64, channels last.
        weight_shape: as `make` has it.
        fan_in: products a sum.
        in_shape, out_shape: channels last.
    """

    words: str
    make: Callable[[], nn.Module]
    define: Product
    weight_shape: Ints
    fan_in: int
    in_shape: Ints
    out_shape: Ints
    channels_first: bool = False


class Function(nn.Module):
    """A function of an input and a weight as a layer."""

    def __init__(self, function: Product):
        super().__init__()
        self._function = function
        self.weight = mx.zeros(())

    def __call__(self, x: mx.array) -> mx.array:
        return self._function(x, self.weight)


@dataclass(frozen=True)
class Shape:
    """What every kind of layer needs: extents, and arguments that have an entry for each spatial axis."""

    x: Ints
    groups: int
    out_channels: int
    kernel: Ints
    stride: Ints
    dilation: Ints
    has_gradients: bool

    @property
    def rank(self) -> int:
        return len(self.kernel)

    @property
    def w(self) -> Ints:
        return (self.out_channels, *self.kernel, self.x[-1] // self.groups)

    def by_axis(self, values: Ints) -> Any:
        return values[0] if self.rank == 1 else values

    def ints(self, rng: np.random.Generator, low: int, high: int) -> Ints:
        return tuple(int(v) for v in rng.integers(low, high + 1, self.rank))


class Undrawn(ValueError):
    """Arguments that a layer does not have."""


def random_layer(
    rng: np.random.Generator, x: Ints | None, rank: int, max_products: int, *, has_gradients: bool
) -> Layer:
    """A layer for inputs of shape `x`, channels last, or for any of this rank, of at most so many products."""
    while True:
        shape = _random_shape(rng, x, rank, has_gradients)
        kind = _KINDS[int(rng.integers(len(_KINDS)))]
        try:
            layer = kind(rng, shape)
            pixels = max(prod(layer.in_shape[:-1]), prod(layer.out_shape[:-1]))
            if pixels * shape.out_channels * layer.fan_in <= max_products and pixels * shape.x[-1] <= max_products:
                return layer
        except (GeometryError, Undrawn):
            continue


def _random_shape(rng: np.random.Generator, x: Ints | None, rank: int, has_gradients: bool) -> Shape:
    def draw(low: int, high: int) -> Ints:
        return tuple(int(v) for v in rng.integers(low, high + 1, rank))

    one = (1,) * rank
    kernel, stride, spatial = draw(1, 4), draw(1, 3), draw(1, (70, 20, 9)[rank - 1])
    if rng.random() < 0.4:
        kernel, stride = (int(rng.choice([3, 3, 5])),) * rank, (int(rng.choice([1, 1, 2])),) * rank
    groups, inputs, outputs = _random_channels(rng)
    match rng.choice(["usual", "usual", "usual", "huge kernel", "one output", "pointwise", "large"]):
        case "huge kernel":
            kernel, inputs = draw(1, (120, 20, 7)[rank - 1]), min(inputs, 4)
            spatial = tuple(k + int(rng.integers(0, 6)) for k in kernel)
        case "one output":
            spatial = kernel
        case "pointwise":
            kernel = stride = one
        case "large":
            spatial, inputs = draw(1, (1000, 60, 16)[rank - 1]), min(inputs, 5)
        case _:
            pass
    dilation = draw(1, 3) if rng.random() < 0.3 else one
    if x is None:
        x = (int(rng.integers(1, 4)), *spatial, groups * inputs)
    else:
        groups = int(rng.choice([g for g in (1, 1, 1, 2, 3, x[-1]) if x[-1] % g == 0]))
    return Shape(x, groups, groups * outputs, kernel, stride, dilation, has_gradients)


def _random_channels(rng: np.random.Generator) -> tuple[int, int, int]:
    """Groups, and the input and output channels of each: often one group, often depthwise."""
    if rng.random() < 0.25:
        return int(rng.choice([3, 8, 16, 17, 33, 64])), 1, int(rng.choice([1, 1, 2, 3]))
    groups = int(rng.choice([1, 1, 1, 2, 3, 7]))
    return groups, int(rng.choice([1, 2, 3, 5, 8, 16, 17, 32])), int(rng.choice([1, 2, 3, 8, 15, 16, 17, 33, 48]))


def _functional(shape: Shape, words: str, call: Product, window: Window) -> Layer:
    """A function of MLX, in groups that MLX itself refuses as a user would make them."""

    def in_parts(x: mx.array, w: mx.array) -> mx.array:
        parts = zip(mx.split(x, shape.groups, -1), mx.split(w, shape.groups, 0), strict=True)
        return mx.concatenate([call(part, kernels) for part, kernels in parts], axis=-1)

    geometry = _geometry(shape, window)
    return Layer(
        f"{words} of {geometry}",
        lambda: Function(in_parts if shape.rank == 3 and shape.groups > 1 else call),
        lambda x, w: convolve(x, w, window),
        shape.w,
        prod(shape.w[1:]),
        shape.x,
        geometry.out_shape,
    )


def _geometry(shape: Shape, window: Window) -> Geometry:
    geometry = Geometry.of_shapes(shape.x, shape.w, window)
    axes = zip(geometry.out_size, window.strides, shape.kernel, window.kernel_dilation, window.pad_lo, strict=True)
    if shape.has_gradients and shape.groups > 1 and any((n - 1) * s + d * (k - 1) < lo for n, s, k, d, lo in axes):
        raise Undrawn("along an axis, windows meet nothing but padding")
    return geometry


def _callable_groups(shape: Shape) -> int:
    return 1 if shape.rank == 3 else shape.groups


def _conv(rng: np.random.Generator, shape: Shape) -> Layer:
    padding = shape.ints(rng, 0, 2)
    name = f"conv{shape.rank}d"
    arguments = [*map(shape.by_axis, (shape.stride, padding, shape.dilation)), _callable_groups(shape)]
    window = Window(shape.stride, padding, padding, shape.dilation, (1,) * shape.rank, shape.groups)
    return _functional(shape, f"mx.{name} {arguments}", lambda x, w: getattr(mx, name)(x, w, *arguments), window)


def _conv_transpose(rng: np.random.Generator, shape: Shape) -> Layer:
    padding, more, window = _transposed_window(rng, shape)
    name = f"conv_transpose{shape.rank}d"
    arguments = [*map(shape.by_axis, (shape.stride, padding, shape.dilation, more)), _callable_groups(shape)]
    return _functional(shape, f"mx.{name} {arguments}", lambda x, w: getattr(mx, name)(x, w, *arguments), window)


def _transposed_window(rng: np.random.Generator, shape: Shape) -> tuple[Ints, Ints, Window]:
    """Padding, output padding and window of a transposed convolution; MLX takes more padding off its input."""
    reach = tuple(d * (k - 1) for d, k in zip(shape.dilation, shape.kernel, strict=True))
    padding = tuple(min(p, r) for p, r in zip(shape.ints(rng, 0, 2), reach, strict=True))
    more = tuple(int(rng.integers(0, s)) for s in shape.stride)
    if shape.has_gradients:
        more = tuple(map(min, more, padding))
    low = tuple(r - p for r, p in zip(reach, padding, strict=True))
    high = tuple(p + m for p, m in zip(low, more, strict=True))
    return padding, more, Window((1,) * shape.rank, low, high, shape.dilation, shape.stride, shape.groups, flip=True)


def _conv_general(rng: np.random.Generator, shape: Shape) -> Layer:
    spread = shape.ints(rng, 1, 3) if rng.random() < 0.4 else (1,) * shape.rank
    least = -1 if max(spread) == 1 else 0  # MLX crops the input before it dilates it
    low, high, flip = shape.ints(rng, least, 3), shape.ints(rng, least, 3), bool(rng.random() < 0.4)
    if shape.has_gradients and max(spread) > 1:
        reach = [d * (k - 1) for d, k in zip(shape.dilation, shape.kernel, strict=True)]
        low, high = (tuple(map(min, side, reach)) for side in (low, high))
        shape = replace(shape, stride=(1,) * shape.rank)
    if any(n + min(lo, 0) + min(hi, 0) < 1 for n, lo, hi in zip(shape.x[1:-1], low, high, strict=True)):
        raise Undrawn("nothing of the input is left")
    arguments = [shape.stride, (low, high), shape.dilation, spread, _callable_groups(shape), flip]
    window = Window(shape.stride, low, high, shape.dilation, spread, shape.groups, flip)
    return _functional(shape, f"mx.conv_general {arguments}", lambda x, w: mx.conv_general(x, w, *arguments), window)


def _mlx_layer(rng: np.random.Generator, shape: Shape) -> Layer:
    if shape.rank == 3 and shape.groups > 1:
        raise Undrawn("MLX's Conv3d has no groups")
    padding = shape.ints(rng, 0, 2)
    arguments = [shape.x[-1], shape.out_channels, *map(shape.by_axis, (shape.kernel, shape.stride, padding))]
    options: dict[str, Any] = {"dilation": shape.by_axis(shape.dilation), "bias": False}
    if shape.rank < 3:
        options["groups"] = shape.groups
    window = Window(shape.stride, padding, padding, shape.dilation, (1,) * shape.rank, shape.groups)
    return _layer(shape, nn, f"Conv{shape.rank}d", arguments, options, window)


def _mlx_transposed_layer(rng: np.random.Generator, shape: Shape) -> Layer:
    if shape.groups > 1:
        raise Undrawn("MLX's transposed layers have no groups")
    padding, more, window = _transposed_window(rng, shape)
    arguments = [shape.x[-1], shape.out_channels, *map(shape.by_axis, (shape.kernel, shape.stride, padding))]
    options = {"dilation": shape.by_axis(shape.dilation), "output_padding": shape.by_axis(more), "bias": False}
    return _layer(shape, nn, f"ConvTranspose{shape.rank}d", arguments, options, window)


def _layer(
    shape: Shape, module: Any, name: str, arguments: list[Any], options: dict[str, Any], window: Window
) -> Layer:
    geometry = _geometry(shape, window)
    return Layer(
        f"{module.__name__}.{name} {arguments} {options} of {shape.x}",
        lambda: getattr(module, name)(*arguments, **options),
        lambda x, w: convolve(x, w, window),
        shape.w,
        prod(shape.w[1:]),
        shape.x,
        geometry.out_shape,
    )


def _our_layer(rng: np.random.Generator, shape: Shape) -> Layer:
    rank, size = shape.rank, shape.x[1:-1]
    mode = str(rng.choice(["zeros", "zeros", "reflect", "replicate", "circular"]))
    padding, written = _random_padding(rng, rank)
    pads = tuple(map(sides, padding, size, shape.kernel, shape.stride, shape.dilation))
    longest = {"reflect": min(size) - 1, "circular": min(size)}.get(mode, max(map(max, pads)))
    if max(map(max, pads)) > longest:
        raise Undrawn("more padding than there is to take")
    window = Window(shape.stride, *map(tuple, zip(*pads, strict=True)), shape.dilation, (1,) * rank, shape.groups)
    geometry, permute = _geometry(shape, window), bool(rng.random() < 0.4)

    def define(x: mx.array, w: mx.array) -> mx.array:
        w = mx.moveaxis(w, 1, -1) if permute else w
        return convolve(padded(x, pads, mode), w, unpadded(window))

    outputs, *kernel, inputs = shape.w
    arguments = [shape.x[-1], outputs, shape.by_axis(shape.kernel), shape.by_axis(shape.stride), written]
    options: dict[str, Any] = {"dilation": shape.dilation, "groups": shape.groups, "bias": False}
    options.update(padding_mode=mode, permute=permute)
    return Layer(
        f"convjit.nn.Conv{rank}d {arguments} {options} of {shape.x} (channels last)",
        lambda: getattr(convjit.nn, f"Conv{rank}d")(*arguments, **options),
        define,
        (outputs, inputs, *kernel) if permute else shape.w,
        prod(shape.w[1:]),
        shape.x,
        geometry.out_shape,
        permute,
    )


def _our_transposed_layer(rng: np.random.Generator, shape: Shape) -> Layer:
    rank, permute, groups = shape.rank, bool(rng.random() < 0.4), shape.groups
    padding, written = _random_padding(rng, rank)
    more = tuple(int(rng.integers(0, s)) for s in shape.stride)
    cuts = tuple(map(cut, padding, shape.kernel, shape.stride, shape.dilation))
    cuts = tuple((before, after - m) for (before, after), m in zip(cuts, more, strict=True))
    axes = zip(shape.x[1:-1], shape.kernel, shape.stride, shape.dilation, cuts, strict=True)
    out = tuple((n - 1) * s + d * (k - 1) + 1 - sum(c) for n, k, s, d, c in axes)
    if min(out) < 1:
        raise Undrawn("no output is left")

    def define(x: mx.array, w: mx.array) -> mx.array:
        if permute:  # (C, O / groups, *kernel)
            parts = [mx.moveaxis(mx.swapaxes(part, 0, 1), 1, -1) for part in mx.split(w, groups, 0)]
            w = mx.concatenate(parts, axis=0)
        return convolve_transposed(x, w, stride=shape.stride, cuts=cuts, dilation=shape.dilation, groups=groups)

    outputs, *kernel, _ = shape.w
    arguments = [shape.x[-1], outputs, shape.by_axis(shape.kernel), shape.by_axis(shape.stride), written]
    options: dict[str, Any] = {"dilation": shape.dilation, "output_padding": more, "groups": groups}
    options.update(bias=False, permute=permute)
    return Layer(
        f"convjit.nn.ConvTranspose{rank}d {arguments} {options} of {shape.x} (channels last)",
        lambda: getattr(convjit.nn, f"ConvTranspose{rank}d")(*arguments, **options),
        define,
        (shape.x[-1], outputs // groups, *kernel) if permute else shape.w,
        prod(shape.w[1:]),
        shape.x,
        (shape.x[0], *out, outputs),
        permute,
    )


def _random_padding(rng: np.random.Generator, rank: int) -> tuple[list[str | tuple[int, int]], Any]:
    """Padding as an entry for each axis, and as somebody might write it."""
    match rng.integers(4):
        case 0:
            word = str(rng.choice(["same", "valid", "causal"]))
            return [word] * rank, word
        case 1:
            both = int(rng.integers(0, 3))
            return [(both, both)] * rank, both
        case 2:
            pairs = [(int(a), int(b)) for a, b in rng.integers(0, 3, (rank, 2))]
            return list(pairs), tuple(side for pair in pairs for side in pair)
        case _:
            mixed: list[str | tuple[int, int]] = [
                str(rng.choice(["same", "causal"])) if rng.random() < 0.5 else tuple(map(int, rng.integers(0, 3, 2)))  # pyright: ignore
                for _ in range(rank)
            ]
            return mixed, mixed[0] if rank == 1 else tuple(mixed)


_KINDS: tuple[Callable[[np.random.Generator, Shape], Layer], ...] = (
    *(_conv, _conv, _conv_transpose, _conv_general, _conv_general),
    *(_mlx_layer, _mlx_transposed_layer, _our_layer, _our_layer, _our_transposed_layer),
)
