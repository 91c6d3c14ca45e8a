"""The tile of `metal/gemm.metal`: what a threadgroup computes, and what it keeps in threadgroup memory."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache
from math import ceil, prod

from convjit.kernel import DTYPES, Kernel
from convjit.schedule import Schedule
from convjit.schedule.nest import Nest, nest
from convjit.schedule.phases import AxisPhase, Phase

LANES = 32
FRAGMENT = 8
"""Rows and columns of a simdgroup_matrix."""


@dataclass(frozen=True)
class Tile:
    """Choices of a schedule of `metal/gemm.metal`. Pixels are rows of matrices, output channels their columns.

    Attributes:
        simdgroups_m, simdgroups_n: simdgroups of a threadgroup, along pixels and along channels.
        tiles_m, tiles_n: 8x8 matrices that a simdgroup sums, along pixels and along channels.
        channels: input channels in threadgroup memory at a time, a multiple of 8.
        images, depth, rows, columns: the box of outputs (of one phase) of a threadgroup.
        staged: how many of the last spatial axes have the input of all their taps in threadgroup memory at a time;
            for the others it is filled anew for each tap.
        parts: the input channels are split into so many sums, which a second kernel adds up.
        folded: how many of the last spatial axes are part of the channels (`fold`).
    """

    simdgroups_m: int
    simdgroups_n: int
    tiles_m: int
    tiles_n: int
    channels: int
    images: int
    depth: int
    rows: int
    columns: int
    staged: int
    parts: int = 1
    folded: int = 0

    @classmethod
    def of(cls, schedule: Schedule) -> Tile:
        return cls(**{f.name: schedule.number(f.name) for f in fields(cls)})

    def choices(self) -> tuple[tuple[str, int], ...]:
        return tuple(sorted((f.name, getattr(self, f.name)) for f in fields(self)))

    @property
    def threads(self) -> int:
        return LANES * self.simdgroups_m * self.simdgroups_n

    @property
    def box(self) -> tuple[int, int, int]:
        return self.depth, self.rows, self.columns

    @property
    def block_m(self) -> int:
        """Rows of a threadgroup's matrix: at least the pixels of its box."""
        return FRAGMENT * self.simdgroups_m * self.tiles_m

    @property
    def block_n(self) -> int:
        """Output channels of a threadgroup."""
        return FRAGMENT * self.simdgroups_n * self.tiles_n


@dataclass(frozen=True)
class Axis:
    """One spatial axis of a kernel under a tile.

    Attributes:
        outputs: the largest number of outputs of a phase.
        boxes: boxes along the axis.
        taps: the largest number of taps of a phase.
        stride, step: between the inputs of neighbouring outputs and of neighbouring taps.
        halo: are the inputs of all taps in threadgroup memory together?
        extent: positions of the axis in threadgroup memory.
        spacing: between them, in the input.
    """

    outputs: int
    boxes: int
    taps: int
    stride: int
    step: int
    halo: bool
    extent: int
    spacing: int


@dataclass(frozen=True)
class Tiling:
    """A kernel cut into tiles.

    Attributes:
        kernel: with the axes that the tile folds in its channels.
        tile: of it.
        dense: are the terms of a sum, all taps of all channels, one row of a matrix (`metal/stem.metal`)? If not, each
            tap is a row of its channels.
    """

    kernel: Kernel
    tile: Tile
    dense: bool = False

    @classmethod
    def of(cls, kernel: Kernel, schedule: Schedule) -> Tiling:
        tile = Tile.of(schedule)
        return cls(fold(kernel, tile.folded), tile, schedule.template == "metal/stem.metal")

    @cached_property
    def loops(self) -> Nest:
        return nest(self.kernel)

    @cached_property
    def axes(self) -> tuple[Axis, ...]:
        """Depth, height, width."""
        return tuple(self._axis(i) for i in range(3))

    def _axis(self, i: int) -> Axis:
        width = self.tile.box[i]
        outputs, taps, stride, step = _largest(self.loops.axes[i], self.loops.out_size[i])
        halo = i >= 3 - self.tile.staged and taps > 1
        extent = (width - 1) * stride + (taps - 1) * step + 1 if halo else width
        return Axis(outputs, ceil(outputs / width), taps, stride, step, halo, extent, 1 if halo else stride)

    @property
    def group_channels(self) -> int:
        return self.kernel.geometry.in_channels // self.kernel.geometry.window.groups

    @property
    def group_filters(self) -> int:
        return self.kernel.geometry.out_channels // self.kernel.geometry.window.groups

    @property
    def padded_channels(self) -> int:
        """Input channels of a group, rounded up to whole matrices."""
        return ceil(self.group_channels / FRAGMENT) * FRAGMENT

    @property
    def pitch(self) -> int:
        """Elements between positions in threadgroup memory: as few as keep a matrix free of bank conflicts.

        A matrix is 8 words of 4 bytes in each of 8 rows, neighbours along the width; those of the second row must not
        be in the banks of the first, nor those of the fifth.
        """
        if self.dense:
            return self.group_channels
        words = self.tile.channels * DTYPES[self.kernel.dtype] // 4
        stride = self.axes[2].stride if self.axes[2].halo else 1
        free = (w for w in range(words, words + 8) if stride * w % 8 == 4)
        return next(free, words + 4) * 4 // DTYPES[self.kernel.dtype]

    @property
    def positions(self) -> int:
        return self.tile.images * prod(axis.extent for axis in self.axes)

    @property
    def threadgroup_bytes(self) -> int:
        return self.positions * self.pitch * DTYPES[self.kernel.dtype]

    @property
    def boxes(self) -> int:
        """Boxes of an image, or of `images` of them."""
        return prod(axis.boxes for axis in self.axes)

    @property
    def blocks_n(self) -> int:
        """Blocks of output channels of a group."""
        return ceil(self.group_filters / self.tile.block_n)

    @property
    def channel_steps(self) -> int:
        """How often threadgroup memory is filled for each of its taps."""
        return ceil(self.padded_channels / self.tile.channels)

    @property
    def channels_of_part(self) -> int:
        return ceil(self.channel_steps / self.tile.parts) * self.tile.channels

    @property
    def image_blocks(self) -> int:
        return ceil(self.kernel.geometry.batch / self.tile.images)

    @property
    def threadgroups(self) -> int:
        groups = self.kernel.geometry.window.groups
        return self.boxes * self.blocks_n * groups * self.image_blocks * len(self.loops.phases) * self.tile.parts

    @cached_property
    def issued(self) -> int:
        """Multiply-adds of all matrices, those with padding included."""
        per_term = self.tile.block_m * self.tile.block_n
        blocks = self.blocks_n * self.kernel.geometry.window.groups * self.image_blocks
        if self.dense:
            return per_term * blocks * self.boxes * self.terms(taps_of(self.loops.phases[0]))
        # Of all phases: the sum over phases of a product over axes is the product over axes of sums.
        sums = (
            sum(ceil(p.outputs(out) / width) * len(p.taps) for p in phases)
            for phases, out, width in zip(self.loops.axes, self.loops.out_size, self.tile.box, strict=True)
        )
        return per_term * blocks * prod(sums) * self.padded_channels

    def terms(self, taps: int) -> int:
        """Products of a sum of so many taps, those with padding included."""
        if self.dense:
            return ceil(taps * self.group_channels / FRAGMENT) * FRAGMENT
        return taps * self.padded_channels


@lru_cache(maxsize=1024)
def _largest(phases: tuple[AxisPhase, ...], out_size: int) -> tuple[int, int, int, int]:
    """Outputs, taps, stride and step of an axis: of each the largest of its phases."""
    outputs, taps = max(p.outputs(out_size) for p in phases), max(len(p.taps) for p in phases)
    return outputs, taps, phases[0].stride, max(p.step for p in phases)


def taps_of(phase: Phase) -> int:
    """The taps of one output."""
    return prod(len(axis.taps) for axis in phase)


def useful(kernel: Kernel) -> int:
    """Multiply-adds of a convolution: taps that fall into padding count, zeros of an input dilation do not."""
    g, loops = kernel.geometry, nest(kernel)
    sums = (
        sum(p.outputs(out) * len(p.taps) for p in phases)
        for phases, out in zip(loops.axes, loops.out_size, strict=True)
    )
    return g.batch * g.out_channels * (g.in_channels // g.window.groups) * prod(sums)


def fold(kernel: Kernel, axes: int) -> Kernel:
    """The same convolution with its last spatial axes as channels: the arrays lie in memory as before.

    Raises:
        ValueError: if they cannot be folded (`foldable`).
    """
    for _ in range(axes):
        kernel = _fold_one(kernel)
    return kernel


def foldable(kernel: Kernel) -> int:
    """How many axes can be folded: windows that lie side by side are rows of a matrix, as in patch embeddings."""
    axes = 0
    while True:
        try:
            kernel = _fold_one(kernel)
        except ValueError:
            return axes
        axes += 1


def _fold_one(kernel: Kernel) -> Kernel:
    g, window = kernel.geometry, kernel.geometry.window
    i = g.rank - 1
    while i >= 0 and g.in_size[i] == g.kernel[i] == 1 and window.pad_lo[i] == window.pad_hi[i] == 0:
        i -= 1
    by = g.kernel[i]
    aligned = i >= 0 and by > 1 and window.strides[i] == by and g.in_size[i] % by == 0
    padded = i < 0 or window.pad_lo[i] or window.pad_hi[i]
    spread = max((*window.kernel_dilation, *window.input_dilation)) > 1
    if not aligned or padded or spread or window.flip or window.groups > 1:
        raise ValueError(f"cannot fold an axis of {g.in_words()}")

    def with_one(numbers: tuple[int, ...], number: int) -> tuple[int, ...]:
        return (*numbers[:i], number, *numbers[i + 1 :])

    folded = replace(
        g,
        in_size=with_one(g.in_size, g.in_size[i] // by),
        in_channels=g.in_channels * by,
        kernel=with_one(g.kernel, 1),
        window=replace(window, strides=with_one(window.strides, 1)),
    )
    return replace(kernel, geometry=folded)
