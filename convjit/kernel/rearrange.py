"""Elements of arrays, as they are, to other places: concatenations, slices, transposes, repetitions."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from convjit.kernel.epilogue import DTYPES

MOST_AXES = 6
"""Of a part, collapsed."""

MOST_PARTS = 64
"""Of a result: each is an argument of the kernel."""


@dataclass(frozen=True, slots=True)
class Part:
    """A box of elements of an operand, and where they go. Places and strides are in elements, of dense arrays.

    Attributes:
        shape: extents of the box.
        source, target: where its first element lies in the operand, and in the result.
        source_strides, target_strides: from one element to the next along each axis; a source stride of 0 repeats, one
            below 0 runs backwards.
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

    def lies_within(self, source_size: int, target_size: int) -> bool:
        """Are all elements that it reads and writes those of dense arrays of these sizes?"""
        read = _bounds(self.shape, self.source, self.source_strides)
        written = _bounds(self.shape, self.target, self.target_strides)
        return read[0] >= 0 and read[1] < source_size and written[0] >= 0 and written[1] < target_size


def _bounds(shape: tuple[int, ...], first: int, strides: tuple[int, ...]) -> tuple[int, int]:
    """The lowest and the highest place of a box's elements."""
    ways = [(n - 1) * step for n, step in zip(shape, strides, strict=True)]
    return first + sum(way for way in ways if way < 0), first + sum(way for way in ways if way > 0)


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
