"""Softmaxes along the last axis."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod


@dataclass(frozen=True, slots=True)
class Softmax:
    """exp(x - max) / sum along the last axis, in f32 and rounded once.

    Attributes:
        shape: of the input and of the result.
        dtype: of both.
    """

    shape: tuple[int, ...]
    dtype: str

    @property
    def operand_shapes(self) -> tuple[tuple[int, ...], ...]:
        return (self.shape,)

    @property
    def operand_dtypes(self) -> tuple[str, ...]:
        return (self.dtype,)

    @property
    def result_shapes(self) -> tuple[tuple[int, ...], ...]:
        return (self.shape,)

    @property
    def result_dtypes(self) -> tuple[str, ...]:
        return (self.dtype,)

    @property
    def rows(self) -> int:
        return prod(self.shape[:-1])

    def in_words(self) -> str:
        """What it runs over: `8x99x99, f32`."""
        return f"{'x'.join(map(str, self.shape))}, {self.dtype}"

    def of_rows(self, rows: int) -> Softmax:
        """The same on two axes, for another number of rows."""
        return replace(self, shape=(rows, self.shape[-1]))

    def any_batch(self) -> Softmax:
        """The same kernel for one row: their number is a run-time value, so this is the key its text is cached by."""
        return self.of_rows(1)
