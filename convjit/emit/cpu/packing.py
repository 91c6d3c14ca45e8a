"""The order in which a CPU kernel reads its weight."""

from __future__ import annotations

from dataclasses import dataclass

from convjit.bilinear import Matrix
from convjit.geometry import Window
from convjit.schedule.phases import kernel_elements, phases


@dataclass(frozen=True, slots=True)
class Packing:
    """The order of a packed weight: [phase][group][block of outputs][tap][channel][output].

    Attributes:
        taps: for each phase, where its taps lie in the flattened kernel.
        groups: how many groups are packed apart; 1 for a depthwise kernel, whose vectors run across its groups.
        block_width: outputs in a block.
        last_width: outputs in the last block of a group, those that only fill up a vector included.
        group_width: outputs of all blocks of a group.
        floats: how many there are in all.
        shape: as what the weight is read, (O, *kernel, C / groups), if not as what it is.
        pairs: bf16 in pairs of channels, [tap][channel / 2][output][2], two of them for a float.
        transforms: axes of the weight and the matrices that are applied along them before all this; taps are counted
            after them, too.
    """

    taps: tuple[tuple[int, ...], ...]
    groups: int
    block_width: int
    last_width: int
    group_width: int
    floats: int
    transforms: tuple[tuple[int, Matrix], ...] = ()
    shape: tuple[int, ...] | None = None
    pairs: bool = False


def taps_of_phases(window: Window, kernel: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """For each phase, where its taps lie in the flattened kernel."""
    return tuple(tuple(kernel_elements(phase, kernel)) for phase in phases(window, kernel))
