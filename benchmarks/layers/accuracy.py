"""How far a result is from float64."""

from __future__ import annotations

from math import prod
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from benchmarks.layers.network import Array, Network

EPS = {"f32": 2.0**-24, "bf16": 2.0**-9}
"""Half of the distance of a type's numbers around 1."""

PRODUCTS = 2e9
"""Multiply-adds of float64 that a check may take, zeros between and around inputs included."""

TERMS = 2e7
"""Inputs of all compared outputs of a check: PyTorch lays them out one by one."""

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


class Errors(NamedTuple):
    """Attributes:
    relative: the largest difference, over the largest magnitude of the reference.
    elementwise: the largest ratio of a difference to `EPS` times the sum of the absolute products behind that output.
    """

    relative: float
    elementwise: float


def errors(network: Network, y: Array) -> Errors:
    """Of the result (N, *out, O) of one convolution; of large ones, the first, middle and last rows of the first and
    last images are compared. What is not a number is infinitely wrong.
    """
    largest = difference = ratio = 0.0
    for image, first, last in _samples(network):
        exact, magnitude = _rows(network, image, first, last)
        apart = np.abs(y[image, first:last] - exact)
        apart[np.isnan(apart)] = np.inf
        largest = max(largest, float(np.abs(exact).max()))
        difference = max(difference, float(apart.max()))
        ratio = max(ratio, float((apart / (EPS[network.dtype] * magnitude + 1e-30)).max()))
    return Errors(difference / largest, ratio)


def _samples(network: Network) -> list[tuple[int, int, int]]:
    """Images with the first row and the row behind the last one: rows are along the first spatial axis."""
    geometry = network.geometry
    rows = geometry.out_size[0]
    terms = prod(geometry.out_size[1:]) * prod(geometry.kernel) * geometry.in_channels
    allowed = int(min(TERMS / terms, PRODUCTS / terms * geometry.window.groups / geometry.out_channels))
    if allowed >= geometry.batch * rows:
        return [(image, 0, rows) for image in range(geometry.batch)]
    images = sorted({0, geometry.batch - 1})
    count = max(1, min(allowed // (3 * len(images)), rows // 3))
    return [(image, first, first + count) for image in images for first in (0, (rows - count) // 2, rows - count)]


def _rows(
    network: Network, image: int, first: int, last: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Rows of an image of the exact result, and of the sums of absolute products, bias included."""
    geometry, window = network.geometry, network.geometry.window
    seen = torch.from_numpy(_seen(network, image, first, last))
    weight = torch.from_numpy(np.moveaxis(network.weights[0].astype(np.float64), -1, 1).copy())
    bias = torch.from_numpy(network.biases[0].astype(np.float64))
    if window.flip:
        weight = weight.flip(tuple(range(2, weight.ndim)))
    convolve = CONVOLUTIONS[geometry.rank]
    settings = {"stride": window.strides, "dilation": window.kernel_dilation, "groups": window.groups}
    with torch.inference_mode():
        exact = torch.relu(convolve(seen, weight, bias, **settings))
        magnitude = convolve(seen.abs(), weight.abs(), bias.abs(), **settings)
    return _channels_last(exact), _channels_last(magnitude)


def _channels_last(y: torch.Tensor) -> npt.NDArray[np.float64]:
    return np.moveaxis(y.numpy()[0], 0, -1)


def _seen(network: Network, image: int, first: int, last: int) -> npt.NDArray[np.float64]:
    """What output rows first to last - 1 read, (1, C, rows, ...): zeros between and around the input are in it."""
    geometry, window = network.geometry, network.geometry.window
    start = first * window.strides[0]
    end = (last - 1) * window.strides[0] + (geometry.kernel[0] - 1) * window.kernel_dilation[0] + 1
    between, low = window.input_dilation[0], window.pad_lo[0]
    rows = [row for row in range(geometry.in_size[0]) if start <= row * between + low < end]
    seen = np.zeros((1, geometry.in_channels, end - start, *geometry.padded_size[1:]))
    if not rows:
        return seen
    inner = [slice(rows[0] * between + low - start, end - start, between)]
    inner += [
        slice(lo, lo + (n - 1) * d + 1, d)
        for n, d, lo in zip(geometry.in_size[1:], window.input_dilation[1:], window.pad_lo[1:], strict=True)
    ]
    x = np.moveaxis(network.x[image, rows[0] : rows[-1] + 1], -1, 0)
    inner[0] = slice(inner[0].start, inner[0].start + (len(rows) - 1) * between + 1, between)
    seen[(0, slice(None), *inner)] = x
    return seen
