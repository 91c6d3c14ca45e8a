"""How the outputs of an axis fall into tiles of a bilinear algorithm."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil

from convjit.bilinear import MAX_POSITIONS, Algorithm, Matrix, Tap, composed, short
from convjit.schedule.phases import AxisPhase

_MOST_PHASES = 4
"""Of an axis, in one algorithm, or residues of its stride: its text grows with them."""

_MOST_APART = 16
"""Phases of an axis that are done one by one: the tables of how their weights are packed grow with them."""


@dataclass(frozen=True, slots=True)
class Tiling:
    """How the outputs of an axis fall into tiles.

    The algorithm is one for all that the axis does, with its stride and phases, or one of two plain ones that serve
    several parts of the kernel:

    - With a stride s, the inputs of each residue modulo s meet every s-th element of the kernel. They are summed like
      channels: few channels become s times as many.
    - If the phases of a transposed convolution have the same number of taps, they read the same inputs, one output
      apart at most. They are done one by one, like more output channels, from inputs that are transformed once.

    Attributes:
        algorithm: of one tile.
        phases: the kernel's taps, each with the input that it meets, counted from `offset` in steps of `spread`.
        parts: for each part of the kernel, its elements and the taps of the algorithm that they are.
        residues: parts that are summed like channels, whose inputs lie side by side.
        apart: parts that are done one by one: phases.
        shift: outputs of the first tile's phases that would lie ahead of the first output.
        stride: inputs from one output of a phase to its next.
        advance: inputs from one tile to the next, in steps of `spread`.
        offset: the first input of the first tile; negative in the padding.
        spread: from one input or output of a tile to the next: the dilation of the kernel.
        count: how many tiles there are.
    """

    algorithm: Algorithm
    phases: tuple[tuple[Tap, ...], ...]
    parts: tuple[tuple[Tap, ...], ...]
    residues: int
    apart: int
    shift: int
    stride: int
    advance: int
    offset: int
    spread: int
    count: int

    @property
    def outputs_of_phase(self) -> int:
        """Outputs of each phase in a tile."""
        return self.algorithm.tile * self.apart // len(self.phases)

    @property
    def by_definition(self) -> int:
        """Multiplications of a tile by the definition, for each channel."""
        return self.outputs_of_phase * sum(map(len, self.phases))

    @property
    def multiplications(self) -> int:
        """Those by the algorithm, of all parts."""
        return self.algorithm.positions * len(self.parts)

    @property
    def growth(self) -> float:
        """Of packed weights that are transformed along the axis."""
        return self.multiplications / sum(map(len, self.phases))

    @property
    def weights(self) -> Matrix:
        """What transforms the kernel: row n * parts + p is position n of part p."""
        elements = 1 + max(element for part in self.parts for element, _ in part)
        rows: list[tuple[Fraction, ...]] = []
        for position in self.algorithm.weights:
            for part in self.parts:
                row = [Fraction(0)] * elements
                for element, tap in part:
                    row[element] = position[tap]
                rows.append(tuple(row))
        return tuple(rows)


def tiling(axis: tuple[AxisPhase, ...], extent: int, tile: int, few_channels: bool) -> Tiling | None:
    """Tiles of `tile` outputs of each phase, along an axis of `extent` outputs.

    Args:
        axis: its phases.
        extent: how many outputs there are.
        tile: how many of them, of each phase, are in a tile.
        few_channels: whether the residues of a stride are summed like channels.

    Returns:
        None if the kernel is both dilated and strided, if a phase has no taps, or if there are too many.
    """
    first = axis[0]
    stride, taps = first.stride, len(first.taps)
    (spread, *other) = sorted({phase.step for phase in axis if len(phase.taps) > 1}) or [1]
    if other or (spread > 1 and (stride > 1 or len(axis) > 1)) or not all(phase.taps for phase in axis):
        return None
    sums_residues = few_channels and len(axis) == 1 and 1 < stride < taps and stride <= _MOST_PHASES
    if sums_residues and _is_short(tile, ceil(taps / stride)):
        return _of_residues(first, extent, tile)
    shift = _shift(axis)
    if shift is not None and len(axis) <= _MOST_APART and _is_short(tile, taps):
        return _apart(axis, extent, tile, shift)
    if max(stride, len(axis)) > _MOST_PHASES:
        return None
    offset = min(phase.offset for phase in axis)
    phases = tuple(tuple((tap, phase.offset - offset + t) for t, tap in enumerate(phase.taps)) for phase in axis)
    algorithm = composed(tile, phases, stride)
    count = ceil(ceil(extent / spread) / algorithm.tile) * spread
    whole = tuple((element, element) for element in range(algorithm.taps))
    return Tiling(algorithm, phases, (whole,), 1, 1, 0, stride, tile * stride, offset, spread, count)


def _is_short(tile: int, taps: int) -> bool:
    return tile + taps - 1 <= MAX_POSITIONS


def _of_residues(phase: AxisPhase, extent: int, tile: int) -> Tiling:
    """The plain algorithm, on the inputs of all residues of the stride."""
    stride, taps = phase.stride, tuple((tap, t) for t, tap in enumerate(phase.taps))
    parts = tuple(tuple((tap, t // stride) for tap, t in taps if t % stride == r) for r in range(stride))
    algorithm = short(tile, ceil(len(taps) / stride))
    count = ceil(extent / tile)
    return Tiling(algorithm, (taps,), parts, stride, 1, 0, stride, tile * stride, phase.offset, 1, count)


def _shift(axis: tuple[AxisPhase, ...]) -> int | None:
    """How many phases read one input further than the first; None if they are not alike otherwise."""
    first, *others = axis
    taps = len(first.taps)
    is_alike = first.stride == 1 and taps > 1 and all(len(phase.taps) == taps for phase in others)
    further = [phase.offset - first.offset for phase in axis]
    shift = further.count(1)
    if not others or not is_alike or further != [0] * (len(axis) - shift) + [1] * shift:
        return None
    return shift


def _apart(axis: tuple[AxisPhase, ...], extent: int, tile: int, shift: int) -> Tiling:
    """The plain algorithm for each phase; those that read one input further come first, with the outputs before."""
    offset, period = axis[0].offset, len(axis)
    phases = tuple(tuple((t, phase.offset - offset + t) for t in range(len(phase.taps))) for phase in axis)
    in_order = [*axis[period - shift :], *axis[: period - shift]]
    parts = tuple(tuple((tap, t) for t, tap in enumerate(phase.taps)) for phase in in_order)
    count = ceil(ceil((extent + shift) / period) / tile)
    return Tiling(short(tile, len(phases[0])), phases, parts, 1, period, shift, 1, tile, offset, 1, count)
