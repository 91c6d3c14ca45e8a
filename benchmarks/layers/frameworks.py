"""A network as ONNX, OpenVINO and PyTorch describe it: channels first, transposed convolutions apart."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from benchmarks.layers.network import Array, Refused
from convjit.geometry import Geometry


@dataclass(frozen=True, slots=True)
class Arguments:
    """Of a convolution or a transposed one; one entry a spatial axis."""

    transposed: bool
    strides: list[int]
    begin: list[int]
    end: list[int]
    dilations: list[int]
    output_padding: list[int]
    groups: int


def arguments(geometry: Geometry) -> Arguments:
    """The window of a geometry in the frameworks' terms.

    Raises:
        Refused: if they have none, as for a convolution that is both strided and transposed.
    """
    window = geometry.window
    dilations, zeros = list(window.kernel_dilation), [0] * geometry.rank
    if not window.transposed:
        return Arguments(
            False, list(window.strides), list(window.pad_lo), list(window.pad_hi), dilations, zeros, window.groups
        )
    if max(window.strides) > 1 or not window.flip:
        raise Refused("no such convolution outside of MLX")
    reach = [d * (k - 1) for d, k in zip(dilations, geometry.kernel, strict=True)]
    begin = [r - p for r, p in zip(reach, window.pad_lo, strict=True)]
    extra = [hi - lo for lo, hi in zip(window.pad_lo, window.pad_hi, strict=True)]
    if min(begin + extra) < 0:
        raise Refused("padding that no transposed convolution has outside of MLX")
    return Arguments(True, list(window.input_dilation), begin, begin, dilations, extra, window.groups)


def channels_first(array: Array) -> Array:
    """(N, *spatial, C) -> (N, C, *spatial), contiguous."""
    return np.ascontiguousarray(np.moveaxis(array, -1, 1))


def channels_last(array: Array) -> Array:
    """(N, C, *spatial) -> (N, *spatial, C)."""
    return np.moveaxis(array, 1, -1)


def first_weight(weight: Array, transposed: bool, groups: int) -> Array:
    """(O, *kernel, C / groups) -> (O, C / groups, *kernel); of a transposed convolution (C, O / groups, *kernel)."""
    if not transposed:
        return channels_first(weight)
    out_channels, *kernel, in_group = weight.shape
    apart = weight.reshape(groups, out_channels // groups, prod(kernel), in_group)
    return np.ascontiguousarray(apart.transpose(0, 3, 1, 2)).reshape(groups * in_group, out_channels // groups, *kernel)
