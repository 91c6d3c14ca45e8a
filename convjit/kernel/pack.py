"""A weight in the order in which a kernel reads it, made between other kernels."""

from __future__ import annotations

from dataclasses import dataclass

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
    def result_dtypes(self) -> tuple[str, ...]:
        return ("f32",)

    @property
    def result_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Not known: how many numbers fill up vectors is the schedule's matter."""
        return ()
