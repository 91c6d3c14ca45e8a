"""What schedules of CPU templates count with: equal pieces of an extent, and the cycles of a tile."""

from __future__ import annotations

from math import ceil


def equal_size(extent: int, most: int) -> int:
    """The size of the fewest pieces of at most `most`, all about the same."""
    return ceil(extent / ceil(extent / most))


def term_cycles(sums: int, vectors: int, loads: int) -> float:
    """What one term of a tile takes, in half cycles, roughly.

    Its multiply-adds or its loads, whichever takes longer, and no less than the latency of a sum.

    Args:
        sums: vectors of sums in registers.
        vectors: of the operand that is loaded in vectors.
        loads: all that is loaded.
    """
    return max(sums, loads, 8) + 0.2 * loads + 0.8 * vectors + 1.5
