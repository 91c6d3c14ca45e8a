"""Pools: one number for each window; and the gradients of those that are maxima."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Literal

from convjit.geometry import Geometry

PoolKind = Literal["max", "sum"]
"""What a pool makes of a window: the greatest element, the first of equals, NaN ahead of all numbers; or the sum."""


@dataclass(frozen=True, slots=True)
class Pool:
    """One number for what a window holds of each channel; the padding holds nothing.

    Attributes:
        kind: which number. That of nothing is -inf or 0.
        geometry: that of a depthwise convolution with this window, neither dilated nor flipped.
        dtype: of what is read and written; sums are in f32 and rounded once.
        result_shape: that of the geometry's output, extents of 1 apart.
    """

    kind: PoolKind
    geometry: Geometry
    dtype: str
    result_shape: tuple[int, ...]

    @property
    def operand_shapes(self) -> tuple[tuple[int, ...], ...]:
        return (self.geometry.in_shape,)

    @property
    def operand_dtypes(self) -> tuple[str, ...]:
        return (self.dtype,)

    @property
    def result_dtypes(self) -> tuple[str, ...]:
        return (self.dtype,)

    @property
    def result_shapes(self) -> tuple[tuple[int, ...], ...]:
        return (self.result_shape,)

    @property
    def terms(self) -> int:
        """Elements of a window."""
        return prod(self.geometry.kernel)

    def in_words(self) -> str:
        """What it makes of which windows: `max of 2x7x6x3 -> 7x6x3, k 3x3, p 1, f32`."""
        return f"{self.kind} of {self.geometry.in_words(batch=True).removesuffix(', depthwise')}, {self.dtype}"

    def of_batch(self, batch: int) -> Pool:
        """The same kernel for another number of images; its result has all axes."""
        geometry = replace(self.geometry, batch=batch)
        return replace(self, geometry=geometry, result_shape=geometry.out_shape)

    def any_batch(self) -> Pool:
        """The same kernel for batch 1: batch is a run-time value, so this is the key its text is cached by."""
        return self.of_batch(1)


@dataclass(frozen=True, slots=True)
class PoolGradient:
    """The gradient of a "max" pool with respect to its input: what comes for a window goes in equal parts to those of
    its elements, padding among them, that are its maximum.

    Attributes:
        geometry: that of the pool.
        dtype: of all arrays: the pool's input, its result, the gradient with respect to that, and what is written.
    """

    geometry: Geometry
    dtype: str

    @property
    def operand_shapes(self) -> tuple[tuple[int, ...], ...]:
        return (self.geometry.in_shape, self.geometry.out_shape, self.geometry.out_shape)

    @property
    def operand_dtypes(self) -> tuple[str, ...]:
        return (self.dtype,) * 3

    @property
    def result_dtypes(self) -> tuple[str, ...]:
        return (self.dtype,)

    @property
    def result_shapes(self) -> tuple[tuple[int, ...], ...]:
        return (self.geometry.in_shape,)

    def in_words(self) -> str:
        """Of which windows: `2x7x6x3 -> 7x6x3, k 3x3, p 1, f32`."""
        return f"{self.geometry.in_words(batch=True).removesuffix(', depthwise')}, {self.dtype}"

    def of_batch(self, batch: int) -> PoolGradient:
        """The same kernel for another number of images."""
        return replace(self, geometry=replace(self.geometry, batch=batch))

    def any_batch(self) -> PoolGradient:
        """The same kernel for batch 1: batch is a run-time value, so this is the key its text is cached by."""
        return self.of_batch(1)
