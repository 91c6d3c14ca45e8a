"""Schedules of `metal/depthwise.metal`: each output channel reads one input channel, C / groups = 1.

A thread computes a patch of outputs, rows x columns of a few neighbouring channels, from registers alone. It walks the
input rows that the patch needs from top to bottom and reads each once. Two ways:

- rolling: all weights are in registers, and the sums of the few rows of outputs that an input row adds to. An output
  row is stored when it is complete, so a patch may have many rows: for small kernels.
- not rolling: the sums of the whole patch are in registers; the weights of the kernel's rows come and go, of wide
  kernels a chunk of taps at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from itertools import product
from math import ceil, gcd, prod

from convjit.kernel import DTYPES, Kernel
from convjit.schedule import Schedule
from convjit.schedule.metal.chip import Chip
from convjit.schedule.nest import nest
from convjit.schedule.phases import AxisPhase

MAX_GRIDS = 64
"""Grids of an axis, at most: each is a row of a table."""

REGISTERS = 64
"""Floats that a thread holds, at most: with them a core still runs enough threads."""

ROLLING_WEIGHTS = 28
"""Weights that a rolling thread holds, at most."""

MAX_UNROLLED = 512
"""Multiply-adds of a loop's body, at most: 4 KB of the 12 KB instruction cache."""

THREADS_PER_CORE = 768
"""With fewer, a core's arithmetic units wait (P. Turner, metal-benchmarks)."""

MAX_CHAIN = 4096
"""Products of one sum in fp32, at most."""

_THREADGROUPS = ((32, 4), (64, 2), (128, 1), (16, 8), (8, 16), (4, 32), (2, 64), (1, 128), (64, 1), (32, 2), (8, 8))
"""Threads along channels and along patches."""

_LINE = 128
"""Bytes that memory gives at a time."""

_BYTE_CYCLES = 2
"""What a byte read or written costs, in multiply-adds: a core does 128 of these a cycle, or reads 64 bytes."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Outputs of an axis whose taps all fall on one grid of input positions, `Axis.step` apart.

    Output number q is output `first + q * period`; its tap t reads input `offset + (q * stride + t) * step` and is
    number `start + t` of the axis in the packed weight.
    """

    first: int
    offset: int
    taps: int
    start: int


@dataclass(frozen=True, slots=True)
class Axis:
    """A spatial axis. It has several grids if it is dilated (taps skip inputs) or transposed (outputs skip taps).

    Attributes:
        in_size, out_size: extents.
        grids: those that have outputs.
        outputs, taps: of the grid that has the most.
        period: distance of the outputs of a grid.
        stride: distance, in steps, of the first taps of two neighbours among them.
        step: distance of the inputs of a grid.
        packed: taps of all grids: the extent of the axis in the packed weight.
    """

    in_size: int
    out_size: int
    grids: tuple[Grid, ...]
    outputs: int
    taps: int
    period: int
    stride: int
    step: int
    packed: int

    @classmethod
    def of_phases(cls, phases: tuple[AxisPhase, ...], in_size: int, out_size: int) -> Axis:
        step = max(phase.step for phase in phases)  # a phase of one tap may take any
        stride = phases[0].stride
        parts = step // gcd(stride, step)
        period = phases[0].period * parts
        grids: list[Grid] = []
        start = 0
        for phase in phases:
            for part in range(parts):
                first = phase.first + part * phase.period
                if first < out_size:
                    grids.append(Grid(first, phase.offset + part * stride, len(phase.taps), start))
            start += len(phase.taps)
        outputs = ceil((out_size - min(grid.first for grid in grids)) / period)
        taps = max(grid.taps for grid in grids)
        return cls(in_size, out_size, tuple(grids), outputs, taps, period, stride * parts // step, step, start)

    def ends(self, patch: int) -> tuple[int, int]:
        """The first and the last input position that patches of so many outputs reach for."""
        last = (ceil(self.outputs / patch) * patch - 1) * self.stride
        return (
            min(grid.offset for grid in self.grids),
            max(grid.offset + (last + max(grid.taps - 1, 0)) * self.step for grid in self.grids),
        )


@dataclass(frozen=True, slots=True)
class Patch:
    """What a thread computes, and the threads of a threadgroup.

    Attributes:
        channels: neighbouring output channels of a thread.
        rows, columns: outputs of a thread, of each channel.
        rolling: 1 if sums roll, 0 if weights come and go.
        taps: of a kernel row whose weights are held together.
        lanes, patches: threads of a threadgroup, along channels and along patches.
    """

    channels: int
    rows: int
    columns: int
    rolling: int
    taps: int
    lanes: int
    patches: int

    @classmethod
    def of(cls, schedule: Schedule) -> Patch:
        return cls(**{field.name: schedule.number(field.name) for field in fields(cls)})

    def choices(self) -> tuple[tuple[str, int], ...]:
        return tuple(sorted((field.name, getattr(self, field.name)) for field in fields(self)))


def axes_of(kernel: Kernel) -> tuple[Axis, Axis, Axis]:
    """Depth, height and width."""
    loops = nest(kernel)
    depth, height, width = map(Axis.of_phases, loops.axes, loops.in_size, loops.out_size)
    return depth, height, width


def depthwise(kernel: Kernel, chip: Chip, count: int = 1) -> list[Schedule]:
    """The best `count` schedules, best first, each of another shape.

    None where C / groups > 1, where an axis has too many grids, or where no tap of any output meets an input.
    """
    geometry = kernel.geometry
    if geometry.in_channels != geometry.window.groups:
        return []
    axes = axes_of(kernel)
    if max(len(axis.grids) for axis in axes) > MAX_GRIDS or min(axis.taps for axis in axes) == 0:
        return []
    distinct: dict[tuple[int, int, int], Patch] = {}
    for patch in sorted(_patches(kernel, axes), key=lambda patch: _cycles(kernel, axes, patch, chip)):
        distinct.setdefault((patch.channels, patch.columns, patch.rolling), patch)
    return [Schedule("metal/depthwise.metal", patch.choices()) for patch in list(distinct.values())[:count]]


def _patches(kernel: Kernel, axes: tuple[Axis, Axis, Axis]) -> Iterator[Patch]:
    """All patches that fit, of each shape the one with the most taps. A patch of one output always does."""
    _, height, width = axes
    for channels, rows, columns in product(_channels(kernel), _extents(height.outputs), _extents(width.outputs)):
        for rolling in (0, 1):
            for taps in _chunks(width.taps):
                patch = Patch(channels, rows, columns, rolling, taps, 0, 0)
                if _fits(kernel, axes, patch):
                    lanes, patches = _threadgroup(kernel, axes, patch)
                    yield replace(patch, lanes=lanes, patches=patches)
                    break


def _fits(kernel: Kernel, axes: tuple[Axis, Axis, Axis], patch: Patch) -> bool:
    depth, height, width = axes
    waiting = pending(height.taps, height.stride)
    row = ((patch.columns - 1) * min(width.stride, patch.taps) + patch.taps) * inputs_of(kernel, patch.channels)
    of_row = patch.columns * patch.channels
    if patch.rolling:
        weights = depth.taps * height.taps * width.taps * patch.channels
        if not _can_roll(axes) or patch.rows < waiting or patch.taps < width.taps or weights > ROLLING_WEIGHTS:
            return False
        return weights + waiting * of_row + row <= REGISTERS
    if patch.rows > 1 and height.stride >= height.taps:
        return False
    sums = patch.rows * of_row * (2 if in_parts(axes) else 1)
    held = ((patch.rows - 1) * height.stride + 1) * patch.taps * patch.channels
    fits = sums + held + row <= REGISTERS and patch.rows * of_row * patch.taps <= MAX_UNROLLED
    return fits or patch.rows * of_row * patch.taps == 1


def _can_roll(axes: tuple[Axis, Axis, Axis]) -> bool:
    """Are there rows to wait for, and sums of all grids?"""
    _, height, _ = axes
    return pending(height.taps, height.stride) > 1 and all(grid.taps for axis in axes for grid in axis.grids)


def in_parts(axes: tuple[Axis, Axis, Axis]) -> bool:
    """Are sums so long that each chunk of taps gets its own, so that they round less?"""
    return prod(axis.taps for axis in axes) > MAX_CHAIN


def padded(extent: int, multiple: int) -> int:
    """`extent` rounded up."""
    return ceil(extent / multiple) * multiple


def pending(taps: int, stride: int) -> int:
    """Rows of outputs that an input row adds to, at most."""
    return ceil(taps / stride)


def inputs_of(kernel: Kernel, channels: int) -> int:
    """Input channels that so many neighbouring output channels read."""
    geometry = kernel.geometry
    return ceil(channels * geometry.in_channels / geometry.out_channels)


def _channels(kernel: Kernel) -> list[int]:
    """Channels that a thread may have: they read one input channel, or whole ones."""
    filters = kernel.geometry.out_channels
    multiplier = filters // kernel.geometry.in_channels
    return [n for n in (1, 2, 4) if filters % n == 0 and (multiplier % n == 0 or n % multiplier == 0)]


def _extents(outputs: int) -> list[int]:
    """Sizes that divide an axis into nearly equal patches."""
    return sorted({ceil(outputs / ceil(outputs / n)) for n in (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16)})


def _chunks(taps: int) -> list[int]:
    """Numbers of taps that divide a kernel row into nearly equal chunks, large ones first."""
    return sorted({ceil(taps / n) for n in range(ceil(taps / 32), taps + 1)}, reverse=True)


def patch_counts(axes: tuple[Axis, Axis, Axis], rows: int, columns: int) -> tuple[int, int, int]:
    """Patches along each axis of a grid."""
    depth, height, width = axes
    return depth.outputs, ceil(height.outputs / rows), ceil(width.outputs / columns)


def _threadgroup(kernel: Kernel, axes: tuple[Axis, Axis, Axis], patch: Patch) -> tuple[int, int]:
    """Threads along blocks of channels and along patches: few idle ones, and lines of memory read whole."""
    blocks = kernel.geometry.out_channels // patch.channels
    patches = prod(patch_counts(axes, patch.rows, patch.columns))
    block_bytes = inputs_of(kernel, patch.channels) * DTYPES[kernel.dtype]

    def cost(shape: tuple[int, int]) -> float:
        line = min(_LINE, min(shape[0], blocks) * block_bytes)
        return padded(blocks, shape[0]) * padded(patches, shape[1]) * (1 + 4 / line)

    return min(_THREADGROUPS, key=cost)


def _cycles(kernel: Kernel, axes: tuple[Axis, Axis, Axis], patch: Patch, chip: Chip) -> float:
    """Of the kernel, in multiply-adds of a thread: what a thread does, times how often the chip is filled with them."""
    geometry, size = kernel.geometry, DTYPES[kernel.dtype]
    depth, height, width = axes
    pixels = patch.rows * patch.columns
    taps = prod(axis.taps for axis in axes)
    multiply_adds = taps * pixels * patch.channels
    chunks = ceil(width.taps / patch.taps)
    rows = depth.taps * ((patch.rows - 1) * min(height.stride, height.taps) + height.taps)
    columns = chunks * (patch.columns - 1) * min(width.stride, patch.taps) + width.taps
    read = rows * columns * _access(inputs_of(kernel, patch.channels) * size) + taps * _access(patch.channels * size)
    written = pixels * sum(_access(patch.channels * DTYPES[dtype]) for dtype in kernel.result_dtypes)
    thread = multiply_adds + read + written + 10 * pixels * patch.channels + 20 * rows * chunks + 50
    blocks, patches = geometry.out_channels // patch.channels, prod(patch_counts(axes, patch.rows, patch.columns))
    threads = padded(blocks, patch.lanes) * padded(patches, patch.patches)
    threads *= geometry.batch * prod(len(axis.grids) for axis in axes)
    # The last threads run alone: the chip is not filled then.
    return thread * (threads / (chip.cores * THREADS_PER_CORE) + 0.25)


def _access(size: int) -> int:
    """Cycles of a lane's access to so many neighbouring bytes: less than 3 do not make it faster."""
    return _BYTE_CYCLES * max(size, 3)
