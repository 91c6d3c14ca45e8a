"""Apple's chips: what a schedule may count on."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import mlx.core as mx

Tier = Literal["base", "pro", "max", "ultra"]
_TIERS: tuple[Tier, ...] = ("base", "pro", "max", "ultra")


@dataclass(frozen=True, slots=True)
class Chip:
    """A chip with all its GPU cores; of those that are also sold with fewer, MLX does not tell how many there are.

    Attributes:
        name: such as "M3 Max".
        generation: of the GPU, as Metal counts: 13 is M1, 17 is M5.
        tier: the chip's size.
        cores: of the GPU.
        teraflops: fp32, a multiply-add being two.
        gigabytes_per_second: of memory, as the vendor states.
    """

    name: str
    generation: int
    tier: Tier
    cores: int
    teraflops: float
    gigabytes_per_second: int

    @property
    def matrix_rate(self) -> float:
        """The part of `teraflops` that simdgroup_matrix sustains."""
        return 0.8 if self.generation < 15 else 0.9

    def threadgroups_per_core(self, dtype: str) -> int:
        """Threadgroups of 128 threads that keep a core busy with matrices of this storage type, such as "f16"."""
        return 6 if dtype == "f32" else 9


def _name(generation: int, tier: Tier) -> str:
    return f"M{generation - 12}" + ("" if tier == "base" else f" {tier.capitalize()}")


_SIZES: dict[int, tuple[tuple[int, float, int], ...]] = {
    13: ((8, 2.6, 68), (16, 5.3, 205), (32, 10.6, 410), (64, 21.2, 819)),
    14: ((10, 3.6, 102), (19, 6.8, 205), (38, 13.6, 410), (76, 27.2, 819)),
    15: ((10, 3.6, 102), (18, 6.4, 154), (40, 14.3, 410), (80, 28.6, 819)),
    16: ((10, 3.8, 120), (20, 8.0, 273), (40, 17.0, 546)),
    17: ((10, 4.0, 154), (20, 8.1, 307), (40, 16.2, 614)),
}
"""Generation -> cores, teraflops, gigabytes a second of its tiers."""

CHIPS: dict[str, Chip] = {
    _name(generation, tier): Chip(_name(generation, tier), generation, tier, *size)
    for generation, sizes in _SIZES.items()
    for tier, size in zip(_TIERS, sizes, strict=False)
}
"""The chips there are, by name."""

DEFAULT = CHIPS["M1 Pro"]
"""What schedules are made for where there is no Metal device."""


def parse(device_info: Mapping[str, str | int]) -> Chip:
    """The chip that `mx.device_info()` speaks of.

    A generation newer than `CHIPS` is taken to be like the newest; an Ultra that is not there yet like two Max.
    """
    # The letter at the end of "applegpu_g13s" does not tell the tier reliably; the name does.
    found = re.search(r"(\d\d)[a-z]?$", str(device_info.get("architecture", "")))
    if found is None or int(found[1]) < min(_SIZES):
        return DEFAULT
    words = str(device_info.get("device_name", "")).lower().split()
    return _chip(int(found[1]), max(_TIERS, key=words.count))  # of no tier named, the first


def _chip(generation: int, tier: Tier) -> Chip:
    name = _name(generation, tier)
    like = _name(min(generation, max(_SIZES)), tier)
    if like in CHIPS:
        return replace(CHIPS[like], name=name, generation=generation)
    half = _chip(generation, "max")
    return Chip(name, generation, tier, 2 * half.cores, 2 * half.teraflops, 2 * half.gigabytes_per_second)


def this_chip() -> Chip:
    """The chip to make schedules for: `CONVJIT_CHIP`, such as "M4 Max", or this machine's, or `DEFAULT`.

    Raises:
        ValueError: if `CONVJIT_CHIP` names no chip of `CHIPS`.
    """
    return _named(chosen) if (chosen := os.environ.get("CONVJIT_CHIP")) else _of_this_machine()


def _named(name: str) -> Chip:
    for chip in CHIPS.values():
        if chip.name.lower() == " ".join(name.lower().split()):
            return chip
    raise ValueError(f"CONVJIT_CHIP is {name!r}, no chip that convjit knows: unset it, or choose of {', '.join(CHIPS)}")


@cache
def _of_this_machine() -> Chip:
    return parse(mx.device_info(mx.gpu)) if mx.metal.is_available() else DEFAULT
