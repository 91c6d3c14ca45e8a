"""How to run a kernel on Metal: which template, which tile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

from convjit.kernel import Kernel
from convjit.schedule import Schedule
from convjit.schedule.metal import weight_gradient
from convjit.schedule.metal.chip import Chip
from convjit.schedule.metal.cost import cost
from convjit.schedule.metal.depthwise import depthwise
from convjit.schedule.metal.direct import direct
from convjit.schedule.metal.gemm import cycles, gather, gemm, stem
from convjit.schedule.metal.grouped import grouped
from convjit.schedule.metal.tensor_ops import available, tensor_ops
from convjit.schedule.metal.tile import Tile, Tiling
from convjit.schedule.metal.winograd import TEMPLATE as WINOGRAD
from convjit.schedule.metal.winograd import winograd

_MATRIX = 8
"""Output channels of a group below which most of a matrix is padding: one thread a pixel does better."""

_LARGE_CACHES = 15
"""The generation (M3) from which on matrices may be gathered without threadgroup memory."""

_OF_MATRICES = {"metal/gemm.metal": gemm, "metal/stem.metal": stem, "metal/gather.metal": gather}


@cache
def choose(kernel: Kernel, chip: Chip) -> Schedule:
    """The schedule that should be the fastest on a chip."""
    if kernel.operation == "weight_gradient":
        return weight_gradient.choose(kernel, chip)
    return next(_preferred(kernel, chip))


def candidates(kernel: Kernel, chip: Chip, macos: tuple[int, ...] = ()) -> list[Schedule]:
    """Schedules worth measuring, `choose`'s first.

    Args:
        kernel: what to compute. Winograd's algorithms need its accuracy to be "fastest".
        chip: what to compute it on.
        macos: the version of the system, such as (26, 3), or empty: tensor operations need a chip and a system that
            have them.
    """
    if kernel.operation == "weight_gradient":
        return weight_gradient.candidates(kernel, chip)
    everything = [
        *_preferred(kernel, chip),
        *gemm(kernel, chip, count=4),
        *stem(kernel, chip, count=3),
        *(gather(kernel, chip, count=2) if chip.generation >= _LARGE_CACHES else ()),
        *depthwise(kernel, chip, count=3),
        *(by_winograd(kernel, chip) if kernel.accuracy == "fastest" else ()),
        *(tensor_ops(kernel, chip) if available(chip, macos) else ()),
    ]
    return list(dict.fromkeys(everything))


def by_winograd(kernel: Kernel, chip: Chip) -> list[Schedule]:
    """Schedules of Winograd's algorithms. They are less accurate, and spread what is not finite."""
    return [*winograd(kernel, chip, 2), *winograd(kernel, chip, 4)]


def smaller(kernel: Kernel, schedule: Schedule, chip: Chip) -> Schedule | None:
    """What to try where a schedule fails on a device, too large for it, say: None behind the direct kernel.

    Instead of Winograd's algorithm the usual one; a tile of half the threads and sums at most; one thread a pixel.
    """
    if kernel.operation == "weight_gradient":
        return weight_gradient.smaller(kernel, schedule, chip)
    if schedule.template == "metal/direct.metal":
        return None
    if schedule.template == WINOGRAD:
        return choose(replace(kernel, accuracy="fast"), chip)
    if schedule.template in _OF_MATRICES:
        size = _size(Tile.of(schedule))
        for other in _OF_MATRICES[schedule.template](kernel, chip, 100):
            if 2 * _size(Tile.of(other)) <= size:
                return other
    return direct(kernel)


def _size(tile: Tile) -> int:
    return tile.block_m * tile.block_n


def _preferred(kernel: Kernel, chip: Chip) -> Iterator[Schedule]:
    """The best schedule of each template that suits the kernel, best first."""
    if kernel.accuracy == "fastest":
        yield from _clearly_faster(by_winograd(kernel, chip), replace(kernel, accuracy="fast"), chip)
    g = kernel.geometry
    filters = g.out_channels // g.window.groups
    dense = g.in_channels // g.window.groups >= 4 * _MATRIX and filters > 1
    if g.window.groups > 1:
        yield from depthwise(kernel, chip)
    if filters >= _MATRIX or dense:
        yield from sorted([*gemm(kernel, chip), *stem(kernel, chip)], key=lambda s: cycles(Tiling.of(kernel, s), chip))
    yield from grouped(kernel, chip)
    yield direct(kernel)


def _clearly_faster(schedules: list[Schedule], kernel: Kernel, chip: Chip) -> Iterator[Schedule]:
    """The fastest of `schedules`, if it should beat what would be chosen otherwise by a quarter."""
    seconds = {schedule: cost(kernel, schedule, chip).seconds for schedule in schedules}
    if seconds and min(seconds.values()) < 0.8 * cost(kernel, choose(kernel, chip), chip).seconds:
        yield min(seconds, key=lambda schedule: seconds[schedule])
