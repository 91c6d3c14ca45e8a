"""Elements of arrays, as they are, to other places: concatenations, slices, transposes, repetitions."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from convjit.kernel.epilogue import DTYPES

MOST_AXES = 6
"""Of a part, collapsed."""


@dataclass(frozen=True, slots=True)
class Part:
    """A box of elements of an operand, and where they go. Places and strides are in elements, of dense arrays.

    Attributes:
        shape: extents of the box.
        source, target: where its first element lies in the operand, and in the result.
        source_strides, target_strides: from one element to the next along each axis; a source stride of 0 repeats.
    """

    shape: tuple[int, ...]
    source: int
    source_strides: tuple[int, ...]
    target: int
    target_strides: tuple[int, ...]

    def collapsed(self) -> Part:
        """The same on as few axes as it takes: no extents of 1, neighbours that lie side by side in both arrays are
        one. At least one axis."""
        axes: list[tuple[int, int, int]] = []
        for extent, source, target in zip(self.shape, self.source_strides, self.target_strides, strict=True):
            if extent == 1:
                continue
            if axes and axes[-1][1:] == (source * extent, target * extent):
                axes[-1] = (axes[-1][0] * extent, source, target)
            else:
                axes.append((extent, source, target))
        shape, sources, targets = zip(*(axes or [(1, 1, 1)]), strict=True)
        return Part(shape, self.source, sources, self.target, targets)

    @property
    def source_end(self) -> int:
        """Behind the last element that is read."""
        return self.source + _span(self.shape, self.source_strides)

    @property
    def target_end(self) -> int:
        """Behind the last element that is written."""
        return self.target + _span(self.shape, self.target_strides)


def _span(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """Elements from the first of a box to its last."""
    return 1 + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))


@dataclass(frozen=True, slots=True)
class Rearrange:
    """A result that is put together from parts of operands, bit by bit as they are.

    Attributes:
        shape: of the result.
        dtype: of all arrays.
        operand_shapes: of what is read.
        parts: one for each operand; together, they are all of the result.
    """

    shape: tuple[int, ...]
    dtype: str
    operand_shapes: tuple[tuple[int, ...], ...]
    parts: tuple[Part, ...]

    @property
    def operand_dtypes(self) -> tuple[str, ...]:
        return (self.dtype,) * len(self.operand_shapes)

    @property
    def result_shapes(self) -> tuple[tuple[int, ...], ...]:
        return (self.shape,)

    @property
    def result_dtypes(self) -> tuple[str, ...]:
        return (self.dtype,)

    @property
    def bytes(self) -> int:
        """Of the result."""
        return prod(self.shape) * DTYPES[self.dtype]

    def in_words(self) -> str:
        """What it makes: `1x64x64x48 of 2 parts, f32`."""
        parts = f" of {len(self.parts)} parts" if len(self.parts) > 1 else ""
        return f"{'x'.join(map(str, self.shape))}{parts}, {self.dtype}"

    def any_batch(self) -> Rearrange:
        """What its text depends on: all extents are run-time values."""
        return Rearrange((), self.dtype, (), ())
