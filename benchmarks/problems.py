"""The convolutions that are measured: 58 problems from public sources, 25 of our experiments, and how they are shrunk.

`conv_problems.json` and `experiments.json` hold them as a user would write them. A simulator executes a few million
multiply-adds a second, so `shrink` makes a smaller problem of the same class: same rank, kernel, strides, dilations and
padding; still batched, still grouped; the same channel remainders modulo 16; and at least 128 output pixels, if it had
as many. `shrink_to` keeps all but the batch and the extents, for problems that would take a CPU seconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

from convjit.geometry import Geometry, Window

FILE = Path(__file__).with_name("conv_problems.json")
EXPERIMENTS = Path(__file__).with_name("experiments.json")
MULTIPLY_ADDS = 60_000_000
ELEMENTS = 500_000
PIXELS = 128


@dataclass(frozen=True, slots=True)
class Problem:
    """A convolution with a name.

    Attributes:
        name: its name in the file.
        geometry: the convolution; a transposed one has its stride in `input_dilation` (see `Window`).
        source: where it is from.
    """

    name: str
    geometry: Geometry
    source: str


def problems() -> tuple[Problem, ...]:
    """All problems of public sources, in full size."""
    return _read(FILE)


def experiments() -> tuple[Problem, ...]:
    """The layers on which generated C was first tried: batch 1, from well-known networks."""
    return _read(EXPERIMENTS)


def _read(file: Path) -> tuple[Problem, ...]:
    return tuple(Problem(r["id"], _geometry(r), r["src"]) for r in json.loads(file.read_text()))


def _geometry(record: dict[str, Any]) -> Geometry:
    batch, *in_size, channels = record["x"]
    rank, kernel, stride, dilation = len(in_size), tuple(record["k"]), tuple(record["stride"]), tuple(record["dil"])
    lo, hi = zip(*record["pad"], strict=True)
    one = (1,) * rank
    if record["transposed"]:
        reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        lo = tuple(r - p for r, p in zip(reach, lo, strict=True))
        hi = tuple(r - p + extra for r, p, extra in zip(reach, hi, record["out_pad"], strict=True))
        window = Window(one, lo, hi, dilation, stride, record["groups"], flip=True)
    else:
        window = Window(stride, lo, hi, dilation, one, record["groups"])
    weight = (record["cout"], *kernel, channels // window.groups)
    return Geometry.of_shapes((batch, *in_size, channels), weight, window)


def multiply_adds(geometry: Geometry) -> int:
    return geometry.flops // 2


def shrink(geometry: Geometry) -> Geometry:
    """A convolution of the same class with at most 60 million multiply-adds and 500,000 input and output elements.

    Cut by halves, in this order, each as far as needed and allowed: the batch, to 2; the longest spatial extent that
    remains at least as long as the dilated kernel; the groups, to 2; the larger of a group's channel counts. At least
    128 output pixels remain, and channels keep their remainder modulo 16.

    Raises:
        ValueError: if it cannot be made small enough.
    """
    while not _fits(geometry):
        geometry = _smaller(geometry)
    return geometry


def shrink_to(geometry: Geometry, flops: float) -> Geometry:
    """A convolution of the same kernel, window and channels with at most so many flops.

    Cut by halves, in this order, each as far as needed and allowed: the batch; the longest spatial extent that remains
    at least as long as the dilated kernel.

    Raises:
        ValueError: if one output takes more.
    """
    while geometry.flops > flops:
        if geometry.batch > 1:
            geometry = _with_half_the_batch(geometry)
            continue
        nearer = next(_nearer(geometry), None)
        if nearer is None:
            raise ValueError(f"{geometry} cannot be shrunk to {flops:g} flops")
        geometry = nearer
    return geometry


def _fits(geometry: Geometry) -> bool:
    elements = prod(geometry.in_shape) + prod(geometry.out_shape)
    return multiply_adds(geometry) <= MULTIPLY_ADDS and elements <= ELEMENTS


def _smaller(geometry: Geometry) -> Geometry:
    if geometry.batch > 2:
        fewer = _with_half_the_batch(geometry)
        if _pixels(fewer) >= PIXELS:
            return fewer
    for nearer in _nearer(geometry):
        if _pixels(nearer) >= PIXELS:
            return nearer
    groups = geometry.window.groups
    if groups > 2:
        fewer_groups = (groups + 1) // 2
        return replace(
            geometry,
            in_channels=geometry.in_channels // groups * fewer_groups,
            out_channels=geometry.out_channels // groups * fewer_groups,
            window=replace(geometry.window, groups=fewer_groups),
        )
    in_group, out_group = geometry.in_channels // groups, geometry.out_channels // groups
    if max(in_group, out_group) < 32:
        raise ValueError(f"{geometry} cannot be shrunk to {MULTIPLY_ADDS} multiply-adds and {ELEMENTS} elements")
    if in_group > out_group:
        return replace(geometry, in_channels=groups * _half_the_channels(in_group))
    return replace(geometry, out_channels=groups * _half_the_channels(out_group))


def _pixels(geometry: Geometry) -> int:
    return geometry.batch * prod(geometry.out_size)


def _half_the_channels(channels: int) -> int:
    return (channels // 16 + 1) // 2 * 16 + channels % 16


def _with_half_the_batch(geometry: Geometry) -> Geometry:
    return replace(geometry, batch=(geometry.batch + 1) // 2)


def _nearer(geometry: Geometry) -> Iterator[Geometry]:
    """The geometry with one of its extents cut by half, where the kernel still fits; the longest first."""
    for axis in sorted(range(geometry.rank), key=lambda a: -geometry.out_size[a]):
        nearer = _with_half_the_extent(geometry, axis)
        if nearer != geometry and _kernel_fits(nearer, axis):
            yield nearer


def _kernel_fits(geometry: Geometry, axis: int) -> bool:
    window = geometry.window
    reach = (geometry.kernel[axis] - 1) * window.kernel_dilation[axis] + 1
    return (geometry.in_size[axis] - 1) * window.input_dilation[axis] + 1 >= reach


def _with_half_the_extent(geometry: Geometry, axis: int) -> Geometry:
    """Cut the input by what half of the outputs along `axis` read: borders and remainders stay as they are."""
    window = geometry.window
    cut = geometry.out_size[axis] // 2 * window.strides[axis] // window.input_dilation[axis]
    in_size = list(geometry.in_size)
    in_size[axis] = max(in_size[axis] - cut, 1)
    return replace(geometry, in_size=tuple(in_size))
