"""Which outputs of a kernel are checked in its proof: at least one of every kind, and many random ones.

Kinds are: corners, the middle, outputs at the borders of the padding, every phase of a transposed convolution, both
sides of where the schedule's tiles may end, the first outputs one by one (each lane, each channel of a fragment), the
channel tail. How a template cuts its output is its own affair: every number among a schedule's choices is taken for the
extent of a tile along every axis and along the flattened pixels, and so is the product of any two.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from convjit.geometry import Geometry
from convjit.kernel import Kernel, Pool
from convjit.proof.oracle import Outputs, Places, Stored
from convjit.schedule import Schedule

RANDOM = 512
"""A place that recurs in every tile of 64 outputs is then missed once in 3,000 times."""
_ROUNDS = 3
"""How often each mark of an axis is sampled, each time beside other marks of the other axes, or any channel."""
_FIRST_PIXELS, _FIRST_CHANNELS, _SPREAD_CHANNELS, _PHASES = 16, 64, 24, 64
_SUSPECTS = 64
_MAX_PRODUCTS = 32_000_000
"""Multiply-adds of a proof, at most: kernels with very long sums get fewer samples."""


def samples(kernel: Kernel | Pool, schedule: Schedule, generator: np.random.Generator) -> Outputs:
    """Indices of the outputs to check: one array an axis (batch, spatial axes, channels)."""
    geometry = kernel.geometry
    most = max(1, _MAX_PRODUCTS // kernel.terms)
    if isinstance(kernel, Kernel) and kernel.operation == "weight_gradient":
        found = of_elements(kernel.result_shape, schedule, generator)
        return tuple(axis[:most] for axis in found)
    shape = geometry.out_shape
    chosen = np.concatenate(
        [
            np.array(list(itertools.product(*({0, n // 2, n - 1} for n in shape)))),
            _marked(geometry, schedule, generator),
            _at_borders(geometry, generator),
            np.stack([generator.integers(0, n, RANDOM) for n in shape], axis=1),
        ]
    )
    return tuple(generator.permutation(chosen)[:most].T)


def samples_and_suspects(
    kernel: Kernel | Pool, schedule: Schedule, results: Sequence[Stored], generator: np.random.Generator
) -> Outputs:
    """Those, and the suspects among the results."""
    chosen = samples(kernel, schedule, generator)
    more = [np.unravel_index(suspects(r), r.shape) for r in results]
    return tuple(np.concatenate(axis) for axis in zip(chosen, *more, strict=True))


def of_elements(shape: tuple[int, ...], schedule: Schedule, generator: np.random.Generator) -> Outputs:
    """Elements of any array, in random order: corners, both sides of the ends of tiles, random ones."""
    tiles = _tiles(schedule)
    marks = [np.array(sorted({0, n - 1, *_ends(tiles, n)})) for n in shape]
    count = max(map(len, marks))
    chosen = np.concatenate(
        [
            np.array(list(itertools.product(*({0, n - 1} for n in shape)))),
            *(
                np.stack([np.resize(generator.permutation(axis), count) for axis in marks], axis=1)
                for _ in range(_ROUNDS)
            ),
            np.stack([generator.integers(0, n, RANDOM) for n in shape], axis=1),
        ]
    )
    return tuple(generator.permutation(chosen).T)


def suspects(result: Stored) -> Places:
    """The flat numbers of outputs that are not finite, not more than a few: what no thread wrote is NaN."""
    return np.flatnonzero(~np.isfinite(result))[:_SUSPECTS]


def _marked(geometry: Geometry, schedule: Schedule, generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """Every mark of every axis, `_ROUNDS` times, and the pixels around the ends of tiles of flattened pixels."""
    tiles = _tiles(schedule)
    images, *spatial, channels = geometry.out_shape
    marks = [
        {0, 1, images - 2, images - 1, *_ends(tiles, images)},
        *(_spatial_marks(geometry, axis) | _ends(tiles, spatial[axis]) for axis in range(geometry.rank)),
        {*range(_FIRST_CHANNELS), channels - 2, channels - 1, *_ends(tiles, channels)},
    ]
    inside = [
        np.array([m for m in sorted(axis) if 0 <= m < n]) for axis, n in zip(marks, geometry.out_shape, strict=True)
    ]
    count = max(map(len, inside))
    rounds = [
        np.stack([np.resize(generator.permutation(axis), count) for axis in inside], axis=1) for _ in range(_ROUNDS)
    ]
    for one in rounds[1:]:
        one[:, -1] = generator.integers(0, channels, count)
    flat = np.array(sorted(_ends(tiles, math.prod(spatial))), np.int64)
    pixels = np.unravel_index(flat, spatial)
    image, channel = (generator.integers(0, n, len(flat)) for n in (images, channels))
    return np.concatenate([*rounds, np.stack([image, *pixels, channel], axis=1)])


def _at_borders(geometry: Geometry, generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """Channels spread over all of them, at both ends of each spatial axis."""
    spread = np.linspace(0, geometry.out_channels - 1, _SPREAD_CHANNELS).astype(np.int64)
    found: list[npt.NDArray[np.int64]] = []
    for axis in range(geometry.rank):
        for end in (0, geometry.out_size[axis] - 1):
            outputs = np.stack([generator.integers(0, n, _SPREAD_CHANNELS) for n in geometry.out_shape], axis=1)
            outputs[:, 1 + axis] = end
            outputs[:, -1] = spread
            found.append(outputs)
    return np.concatenate(found)


def _spatial_marks(geometry: Geometry, axis: int) -> set[int]:
    """The first outputs, every phase at both ends, and the outputs around which taps leave the input."""
    window, last = geometry.window, geometry.out_size[axis] - 1
    stride, spread = window.strides[axis], window.input_dilation[axis]
    reach = (geometry.kernel[axis] - 1) * window.kernel_dilation[axis]
    extent = (geometry.in_size[axis] - 1) * spread + 1
    border_lo = window.pad_lo[axis] // stride
    border_hi = (extent + window.pad_lo[axis] - reach) // stride
    around = [border + offset for border in (border_lo, border_hi) for offset in (-1, 0, 1)]
    period = min(spread // math.gcd(stride, spread), _PHASES)
    return {*range(_FIRST_PIXELS), *around, *range(period), *range(last - period, last + 1), last // 2}


def _tiles(schedule: Schedule) -> set[int]:
    numbers = sorted({value for _, value in schedule.choices if isinstance(value, int) and value > 1})
    return {*numbers, *(a * b for a, b in itertools.combinations_with_replacement(numbers, 2))}


def _ends(tiles: Iterable[int], extent: int) -> set[int]:
    """Both sides of the end of the first tile and of the start of the last one, for each possible tile."""
    around: set[int] = set()
    for tile in tiles:
        last_start = (extent - 1) // tile * tile
        around |= {tile - 1, tile, last_start - 1, last_start}
    return {position for position in around if 0 <= position < extent}
