"""Schedules of `metal/elementwise.metal`: elementwise ops, and sums of channels.

A thread does a few neighbouring elements of several rows. Where there are sums, threads that share columns add up what
each has of them; a second kernel adds up what threadgroups have.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod

from convjit.kernel import Elementwise
from convjit.schedule import Schedule
from convjit.schedule.metal.chip import Chip

TEMPLATE = "metal/elementwise.metal"

MAX_ELEMENTS = 2**30
"""Every index is an int, also one behind the end."""

_THREADS = 128
"""Of a threadgroup."""

_LANES = (128, 64, 32, 16, 8)
"""Threads of a threadgroup along columns: at least 8, whose elements are a line of the cache."""

_MOST_ROWS = 8
_MOST_ROWS_OF_SUMS = 32
"""Rows of a thread, at most; of those that it adds up one after the other: longer chains lose digits."""

_THREADGROUPS_PER_CORE = 4
"""A thread takes more rows only where that many are left, and so the cores stay busy."""

_PARTS = 32
"""Threads of the second kernel that share a column: each adds up every so many-th part."""


@dataclass(frozen=True, slots=True)
class Tile:
    """What a threadgroup does. What has one axis is one row, cut into pieces: the tile's rows are those pieces.

    Attributes:
        vector: neighbouring elements of a thread.
        lanes: threads along columns.
        groups: threads along rows.
        rows: of a thread.
    """

    vector: int
    lanes: int
    groups: int
    rows: int

    @property
    def columns(self) -> int:
        return self.lanes * self.vector

    @classmethod
    def of(cls, schedule: Schedule, *, is_flat: bool) -> Tile:
        vector, threads = schedule.number("vector"), schedule.number("threads")
        if is_flat:
            return cls(vector, threads, 1, schedule.number("column_block") // (threads * vector))
        lanes = schedule.number("column_block") // vector
        groups = threads // lanes
        return cls(vector, lanes, groups, schedule.number("row_block") // groups)

    def schedule(self, *, is_flat: bool, has_sums: bool) -> Schedule:
        choices = {
            "column_block": self.columns * self.rows if is_flat else self.columns,
            **({"parts": _PARTS} if has_sums else {}),
            "row_block": 1 if is_flat else self.groups * self.rows,
            "threads": self.lanes * self.groups,
            "vector": self.vector,
        }
        return Schedule(TEMPLATE, tuple(choices.items()))


def elementwise(kernel: Elementwise, chip: Chip) -> Schedule:
    """The schedule that should be the fastest on a chip.

    Choices: a threadgroup of `threads` does `row_block` rows of `column_block` columns, each thread `vector` of them at
    a time; of one long row, `column_block` elements. `parts` threads of the second kernel share a column.
    """
    shape = kernel.collapsed().shape
    is_flat = len(shape) == 1
    vector = 4 if is_flat else next(n for n in (4, 2, 1) if shape[-1] % n == 0)
    lanes = _THREADS if is_flat else _lanes(shape[-1] // vector)
    groups = _THREADS // lanes
    threadgroups = ceil(shape[-1] / (lanes * vector)) * ceil(prod(shape[:-1]) / groups)
    rows = _MOST_ROWS_OF_SUMS if kernel.has_sums else _MOST_ROWS
    while rows > 1 and threadgroups < rows * _THREADGROUPS_PER_CORE * chip.cores:
        rows //= 2
    return Tile(vector, lanes, groups, rows).schedule(is_flat=is_flat, has_sums=kernel.has_sums)


def smaller(kernel: Elementwise, schedule: Schedule) -> Schedule | None:
    """A thread that holds one element at a time instead of several; None if it does already."""
    is_flat = len(kernel.collapsed().shape) == 1
    tile = Tile.of(schedule, is_flat=is_flat)
    if tile.vector == 1:
        return None
    return Tile(1, tile.lanes, tile.groups, tile.rows).schedule(is_flat=is_flat, has_sums=kernel.has_sums)


def _lanes(blocks: int) -> int:
    """Threads along that many vectors of columns: those that leave the fewest idle, of equals the most."""
    if blocks < min(_LANES):
        return 1 << (blocks - 1).bit_length()
    return min(_LANES, key=lambda lanes: ceil(blocks / lanes) * lanes)
