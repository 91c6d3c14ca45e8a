"""Ops that only move elements, and where these come from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import prod
from operator import add
from typing import NamedTuple

from xdsl.ir import SSAValue

from convjit.ir.types import shape_of
from convjit.kernel import Part

RESHAPES = ("Reshape", "Flatten", "Unflatten", "ExpandDims", "Squeeze")
"""What gives the same elements in the same order other axes."""

MOVES = ("Broadcast", "Concatenate", "Pad", "Slice", "SliceUpdate", "Split", "Transpose", *RESHAPES)
"""What gives elements of arrays as they are."""


class Strided(NamedTuple):
    """Elements of a dense array, `base`: the first lies at `offset`, the others as far apart as `strides` say."""

    base: SSAValue
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @classmethod
    def whole(cls, value: SSAValue) -> Strided:
        shape = shape_of(value.type)
        return cls(value, 0, shape, dense(shape))

    @property
    def is_whole(self) -> bool:
        """Is it all of its base, in the same order?"""
        part = self.part(0, dense(self.shape)).collapsed()
        return prod(shape_of(self.base.type)) == prod(self.shape) and part.source_strides == part.target_strides

    def part(self, target: int, target_strides: tuple[int, ...]) -> Part:
        """These elements as part of a result."""
        return Part(self.shape, self.offset, self.strides, target, target_strides)

    def box(self, starts: Sequence[int], steps: Sequence[int], shape: tuple[int, ...]) -> Strided:
        offset = self.offset + sum(start * stride for start, stride in zip(starts, self.strides, strict=True))
        strides = tuple(step * stride for step, stride in zip(steps, self.strides, strict=True))
        return Strided(self.base, offset, shape, strides)

    def broadcast(self, shape: tuple[int, ...]) -> Strided:
        added = len(shape) - len(self.shape)
        axes = zip(self.shape, self.strides, shape[added:], strict=True)
        strides = (0,) * added + tuple(stride if old == new else 0 for old, stride, new in axes)
        return Strided(self.base, self.offset, shape, strides)

    def reshaped(self, shape: tuple[int, ...]) -> Strided | None:
        """The same elements by other axes; None where no strides say which. Like NumPy's reshape without a copy: each
        of the smallest groups of axes with as many elements before as behind has to be evenly strided."""
        old = [(extent, stride) for extent, stride in zip(self.shape, self.strides, strict=True) if extent > 1]
        new = [extent for extent in shape if extent > 1]
        strides: list[int] = []
        while old:
            olds, news = 1, 1
            while (before := prod(n for n, _ in old[:olds])) != (behind := prod(new[:news])):
                olds, news = olds + (before < behind), news + (behind < before)
            for (_, outer), (extent, inner) in pairwise(old[:olds]):
                if outer != extent * inner:
                    return None
            strides += [old[olds - 1][1] * prod(new[at + 1 : news]) for at in range(news)]
            old, new = old[olds:], new[news:]
        rest = iter(strides)
        return Strided(self.base, self.offset, shape, tuple(next(rest) if n > 1 else 0 for n in shape))


class Piece(NamedTuple):
    """A box of an array, where it begins in that, and where its elements come from."""

    starts: tuple[int, ...]
    elements: Strided

    def outside(self, starts: Sequence[int], shape: Sequence[int]) -> Iterator[Piece]:
        """What of it is not in another box, as boxes."""
        first, end = [0] * len(starts), list(self.elements.shape)
        low = [max(start - at, 0) for at, start in zip(self.starts, starts, strict=True)]
        high = [min(start + n - at, m) for at, start, n, m in zip(self.starts, starts, shape, end, strict=True)]
        if any(a >= b for a, b in zip(low, high, strict=True)):
            yield self
            return
        for axis in range(len(end)):
            for a, b in ((0, low[axis]), (high[axis], end[axis])):
                if a < b:
                    yield self._box([*first[:axis], a, *first[axis + 1 :]], [*end[:axis], b, *end[axis + 1 :]])
            first[axis], end[axis] = low[axis], high[axis]

    def _box(self, first: Sequence[int], end: Sequence[int]) -> Piece:
        extents = tuple(b - a for a, b in zip(first, end, strict=True))
        return Piece(tuple(map(add, self.starts, first)), self.elements.box(first, (1,) * len(first), extents))


def framed(pieces: Sequence[Piece], inner: Piece) -> list[Piece]:
    """An array of these pieces, with another one in the place of what they had there."""
    return [inner, *(rest for piece in pieces for rest in piece.outside(inner.starts, inner.elements.shape))]


def dense(shape: Sequence[int]) -> tuple[int, ...]:
    """The strides of a dense array."""
    return tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))
