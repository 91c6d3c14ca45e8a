"""A convolution, or the gradient of its weight, and an epilogue."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Literal

from convjit.geometry import Geometry
from convjit.kernel.epilogue import Epilogue, Extra

Accuracy = Literal["precise", "fast", "fastest"]
"""What a schedule may trade for speed.

"precise": sums of products as defined, in fp32, long ones combined of shorter ones; what is not finite stays where it
belongs. "fast", the default: the same order of accuracy, elementwise. "fastest": errors that are small against the
largest result, as those of Winograd's algorithms with large tiles, which also spread infinities and NaN over a tile.
"""


Operation = Literal["convolution", "weight_gradient"]
"""What a kernel computes. "weight_gradient": the gradient of a convolution with respect to its weight, of the
convolution's input and the gradient of its output."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """A convolution, its storage types and its epilogue: all that a kernel's text depends on but the schedule.

    `accuracy` only limits which schedules may be chosen. The `geometry` of a weight gradient is that of the convolution
    itself; it has no extras, and its epilogue is the identity.
    """

    geometry: Geometry
    dtype: str
    extras: tuple[Extra, ...]
    epilogue: Epilogue
    result_dtypes: tuple[str, ...]
    accuracy: Accuracy = "fast"
    operation: Operation = "convolution"

    @property
    def operand_shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The input and the weight (O, *kernel, C / groups), or, for its gradient, the gradient of the output."""
        geometry = self.geometry
        second = geometry.out_shape if self.operation == "weight_gradient" else geometry.weight_shape
        return geometry.in_shape, second

    @property
    def result_shape(self) -> tuple[int, ...]:
        return self.geometry.weight_shape if self.operation == "weight_gradient" else self.geometry.out_shape

    @property
    def result_shapes(self) -> tuple[tuple[int, ...], ...]:
        return (self.result_shape,) * len(self.result_dtypes)

    @property
    def terms(self) -> int:
        """Products that are summed for each result, those with padding among them."""
        geometry = self.geometry
        return prod(geometry.out_shape[:-1] if self.operation == "weight_gradient" else geometry.weight_shape[1:])

    def in_words(self) -> str:
        """Its shapes and window, and its storage type: `2x7x6x3 -> 7x6x5, k 3x3, p 1, f32`."""
        return f"{self.geometry.in_words(batch=True)}, {self.dtype}"

    def any_batch(self) -> Kernel:
        """The same kernel for batch 1: batch is a run-time value, so this is the key its text is cached by.

        An extra that varies along the batch keeps its extent above 1 by the mark 2.
        """
        extras = tuple(replace(e, shape=(min(e.shape[0], 2), *e.shape[1:])) for e in self.extras)
        return replace(self, geometry=replace(self.geometry, batch=1), extras=extras)
