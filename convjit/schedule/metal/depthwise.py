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
from dataclasses import dataclass, fields
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
        period: distance of the outputs of a grid.
        stride: distance, in steps, of the first taps of two neighbours among them.
        step: distance of the inputs of a grid.
        packed: taps of all grids: the extent of the axis in the packed weight.
    """

    in_size: int
    out_size: int
    grids: tuple[Grid, ...]
    period: int
    stride: int
    step: int
    packed: int

    @classmethod
    def of_phases(cls, phases: tuple[AxisPhase, ...], in_size: int, out_size: int) -> Axis:
        step = max(phase.step for phase in phases)  # a phase of one tap may take any
        stride, period = phases[0].stride, phases[0].period
        parts = step // gcd(stride, step)
        grids: list[Grid] = []
        start = 0
        for phase in phases:
            for part in range(parts):
                first = phase.first + part * period
                if first < out_size:
                    grids.append(Grid(first, phase.offset + part * stride, len(phase.taps), start))
            start += len(phase.taps)
        return cls(in_size, out_size, tuple(grids), period * parts, stride * parts // step, step, start)

    @property
    def outputs(self) -> int:
        """Of the grid that has the most."""
        return ceil((self.out_size - min(grid.first for grid in self.grids)) / self.period)

    @property
    def taps(self) -> int:
        """Of the grid that has the most."""
        return max(grid.taps for grid in self.grids)

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
    """The best `count` schedules, best first; none where C / groups > 1, phases are too many or all sums are empty."""
    geometry = kernel.geometry
    if geometry.in_channels != geometry.window.groups:
        return []
    axes = axes_of(kernel)
    if max(len(axis.grids) for axis in axes) > MAX_GRIDS or min(axis.taps for axis in axes) == 0:
        return []
    ranked = sorted(_patches(kernel, axes), key=lambda patch: _cycles(kernel, axes, patch, chip))
    return [Schedule("metal/depthwise.metal", patch.choices()) for patch in ranked[:count]]


def _patches(kernel: Kernel, axes: tuple[Axis, Axis, Axis]) -> Iterator[Patch]:
    """All patches that fit. A patch of one output always does."""
    _, height, width = axes
    never_empty = all(grid.taps for axis in axes for grid in axis.grids)
    for channels, rows, columns in product(_channels(kernel), _extents(height.outputs), _extents(width.outputs)):
        threads = _threadgroup(kernel.geometry.out_channels // channels, prod(patch_counts(axes, rows, columns)))
        whole = Patch(channels, rows, columns, 1, width.taps, *threads)
        weights = prod(axis.taps for axis in axes) * channels
        if never_empty and rows >= pending(height.taps, height.stride) > 1 and weights <= ROLLING_WEIGHTS:
            sums = pending(height.taps, height.stride) * columns * channels
            if weights + sums + _row(kernel, width, whole) <= REGISTERS:
                yield whole
        if rows > 1 and height.stride >= height.taps:
            continue
        held = ((rows - 1) * height.stride + 1) * channels
        for taps in _chunks(width.taps):
            patch = Patch(channels, rows, columns, 0, taps, *threads)
            registers = rows * columns * channels + held * taps + _row(kernel, width, patch)
            small = registers <= REGISTERS and rows * columns * channels * taps <= MAX_UNROLLED
            if small or channels == rows == columns == taps == 1:
                yield patch


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
    """Sizes up to 16 that divide an axis into nearly equal patches."""
    return sorted({ceil(outputs / n) for n in range(ceil(outputs / 16), outputs + 1)})


def _chunks(taps: int) -> list[int]:
    """Numbers of taps that divide a kernel row into nearly equal chunks."""
    return sorted({ceil(taps / n) for n in range(ceil(taps / 32), taps + 1)}) or [1]


def _row(kernel: Kernel, width: Axis, patch: Patch) -> int:
    """Registers of the input that a row of the patch reads."""
    return ((patch.columns - 1) * width.stride + patch.taps) * inputs_of(kernel, patch.channels)


def patch_counts(axes: tuple[Axis, Axis, Axis], rows: int, columns: int) -> tuple[int, int, int]:
    """Patches along each axis of a grid."""
    depth, height, width = axes
    return depth.outputs, ceil(height.outputs / rows), ceil(width.outputs / columns)


def _threadgroup(blocks: int, patches: int) -> tuple[int, int]:
    """Threads along blocks of channels and along patches: those that leave the fewest idle."""
    shapes = [(lanes, threads // lanes) for threads in (128, 64) for lanes in (32, 64, 128, 16, 8, 4, 2, 1)]
    return min((s for s in shapes if prod(s) >= 64), key=lambda s: padded(blocks, s[0]) * padded(patches, s[1]))


def _cycles(kernel: Kernel, axes: tuple[Axis, Axis, Axis], patch: Patch, chip: Chip) -> float:
    """Of the kernel, relative to others: what a thread does, times how often the chip is filled with threads."""
    geometry = kernel.geometry
    depth, height, width = axes
    outputs = patch.rows * patch.columns * patch.channels
    taps = prod(axis.taps for axis in axes)
    multiply_adds = taps * outputs
    if patch.rolling:
        multiply_adds += taps * (pending(height.taps, height.stride) - 1) * patch.columns * patch.channels
    chunks = ceil(width.taps / patch.taps)
    row = chunks * (patch.columns - 1) * min(width.stride, patch.taps) + width.taps
    rows = (patch.rows - 1) * min(height.stride, height.taps) + height.taps
    read = depth.taps * rows * row * inputs_of(kernel, patch.channels) + taps * patch.channels
    written = sum(DTYPES[dtype] for dtype in kernel.result_dtypes) * outputs
    thread = multiply_adds + _BYTE_CYCLES * (read * DTYPES[kernel.dtype] + written) + 10 * outputs + 50
    blocks, patches = geometry.out_channels // patch.channels, prod(patch_counts(axes, patch.rows, patch.columns))
    threads = padded(blocks, patch.lanes) * padded(patches, patch.patches)
    threads *= geometry.batch * prod(len(axis.grids) for axis in axes)
    return thread * max(1.0, threads / (chip.cores * THREADS_PER_CORE))
