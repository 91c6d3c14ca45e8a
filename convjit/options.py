"""How a function is to be compiled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from convjit.kernel import Accuracy

Fallback = Literal["warn", "error", "quiet"]


@dataclass(frozen=True, slots=True)
class Options:
    """The options of one compiled function.

    `tune` tells whether kernels that are new on this machine are to be measured; `accuracy`, what schedules may trade
    for speed.
    """

    backend: str | None
    fallback: Fallback
    pipeline: str | None
    tune: bool = False
    accuracy: Accuracy = "fast"
