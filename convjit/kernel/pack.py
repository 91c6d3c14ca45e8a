"""A weight in the order in which a kernel reads it, made between other kernels."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from convjit.geometry import Window


@dataclass(frozen=True, slots=True)
class Pack:
    """What attention does with its keys and values: a weight that is new in every call is packed, in float32.

    No schedule is chosen for it: that of its call, and the window, are those of the kernel that reads the weight.

    Attributes:
        window: of the convolution.
        shape: of the weight, or of several matrices, one for each image.
    """

    window: Window
    shape: tuple[int, ...]

    @property
    def operand_shapes(self) -> tuple[tuple[int, ...], ...]:
        return (self.shape,)

    @property
    def operand_dtypes(self) -> tuple[str, ...]:
        return ("f32",)

    @property
    def result_dtypes(self) -> tuple[str, ...]:
        return ("f32",)

    @property
    def weights(self) -> int:
        """How many lie one behind the other."""
        return self.shape[0] if self.window.rank == 0 and len(self.shape) == 3 else 1

    @property
    def result_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Not known: how many numbers fill up vectors is the schedule's matter."""
        return ()

    @property
    def bytes(self) -> int:
        return 4 * prod(self.shape)
