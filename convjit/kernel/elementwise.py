"""Scalar ops on all elements of arrays, and sums of what they give."""

from __future__ import annotations

from dataclasses import dataclass, replace

from convjit.kernel.axes import merged, merged_axes
from convjit.kernel.epilogue import Epilogue, Extra


@dataclass(frozen=True, slots=True)
class Result:
    """An array that an elementwise kernel writes: all elements, or, for each channel, their sum."""

    shape: tuple[int, ...]
    dtype: str
    is_sum: bool = False


@dataclass(frozen=True, slots=True)
class Elementwise:
    """Scalar ops on all elements of arrays that broadcast against each other, and sums of what they give.

    Attributes:
        shape: of the elements; the last axis is that of the channels.
        operands: what is read, each of the rank of `shape`.
        body: the scalar ops; its inputs are the matching elements of the operands.
        results: what is written, one for each result of `body`. Sums are over all axes but the last.
    """

    shape: tuple[int, ...]
    operands: tuple[Extra, ...]
    body: Epilogue
    results: tuple[Result, ...]

    @property
    def operand_shapes(self) -> tuple[tuple[int, ...], ...]:
        return tuple(operand.shape for operand in self.operands)

    @property
    def operand_dtypes(self) -> tuple[str, ...]:
        return tuple(operand.dtype for operand in self.operands)

    @property
    def result_dtypes(self) -> tuple[str, ...]:
        return tuple(result.dtype for result in self.results)

    @property
    def result_shapes(self) -> tuple[tuple[int, ...], ...]:
        return tuple(result.shape for result in self.results)

    @property
    def has_sums(self) -> bool:
        return any(result.is_sum for result in self.results)

    def in_words(self) -> str:
        """What it runs over, and what it does: `8x32x32x16, 5 scalar ops, 2 results, 1 sum`."""
        sums = sum(result.is_sum for result in self.results)
        counts = {"scalar op": len(self.body.instructions), "result": len(self.results) - sums, "sum": sums}
        words = [f"{count} {name}{'s' * (count != 1)}" for name, count in counts.items() if count]
        return ", ".join(["x".join(map(str, self.shape)), *words])

    def collapsed(self) -> Elementwise:
        """The same on as few axes as it takes: neighbours are one axis if every operand varies along both or neither.

        Where there are sums, the last axis stays what it is, behind at least one other.
        """
        axes = merged_axes(self.shape, self.operands, keeps_last=self.has_sums)
        operands = tuple(replace(operand, shape=merged(operand.shape, axes)) for operand in self.operands)
        return replace(self, shape=merged(self.shape, axes), operands=operands)

    def any_batch(self) -> Elementwise:
        """The same kernel, collapsed, for any extent of the outermost axis, which is a run-time value: the key its text
        is cached by. Extents above 1 along that axis have the mark 2."""
        same = self.collapsed()
        return replace(
            same,
            shape=(2, *same.shape[1:]),
            operands=tuple(replace(o, shape=(min(o.shape[0], 2), *o.shape[1:])) for o in same.operands),
            results=tuple(replace(r, shape=()) for r in same.results),
        )
