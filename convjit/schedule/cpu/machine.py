"""What a schedule has to know about a CPU."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Machine:
    """The vectors and caches of one core of a CPU, and how many there are.

    Attributes:
        lanes: floats in a vector register.
        registers: how many vector registers there are.
        l1_bytes: of its first-level data cache.
        l2_bytes: of its second-level cache; its share, where several cores have one between them.
        threads: that kernels run on.
        bf16_dot: whether it multiplies pairs of bf16 and adds them up in one instruction that is quicker than two for
            floats.
    """

    lanes: int
    registers: int
    l1_bytes: int = 32 << 10
    l2_bytes: int = 1 << 20
    threads: int = 2
    bf16_dot: bool = False
