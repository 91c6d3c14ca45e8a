"""Norms and an epilogue."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from convjit.kernel.axes import merged, merged_axes
from convjit.kernel.epilogue import Epilogue, Extra


@dataclass(frozen=True, slots=True)
class Norm:
    """(x - mean) / sqrt(variance + eps), and an epilogue: LayerNorm, GroupNorm, InstanceNorm, RMSNorm.

    Attributes:
        shape: of the input and of the results; the last axis is that of the channels.
        pixels: how many neighbours, counted through all other axes, have statistics together: all of an image, or 1.
        groups: of channels, with statistics of their own.
        interleaved: whether the channels of a group lie `groups` apart; else they are neighbours.
        eps: what is added to the variance.
        centered: whether the mean is subtracted; else it counts as 0 (RMSNorm), only where pixels and groups are 1.
        dtype: of the input; what is normalised is f32.
        extras: what the epilogue reads besides, each of the rank of `shape`.
        epilogue: its value 0 is what is normalised.
        result_dtypes: of what is written.
    """

    shape: tuple[int, ...]
    pixels: int
    groups: int
    interleaved: bool
    eps: float
    centered: bool
    dtype: str
    extras: tuple[Extra, ...]
    epilogue: Epilogue
    result_dtypes: tuple[str, ...]

    @property
    def operand_shapes(self) -> tuple[tuple[int, ...], ...]:
        return (self.shape, *(extra.shape for extra in self.extras))

    @property
    def operand_dtypes(self) -> tuple[str, ...]:
        return (self.dtype, *(extra.dtype for extra in self.extras))

    @property
    def result_shapes(self) -> tuple[tuple[int, ...], ...]:
        return (self.shape,) * len(self.result_dtypes)

    @property
    def images(self) -> int:
        """How many times there are `pixels`."""
        return prod(self.shape[:-1]) // self.pixels

    @property
    def is_by_row(self) -> bool:
        """Have all channels of a pixel statistics of their own?"""
        return self.pixels == self.groups == 1

    def in_words(self) -> str:
        """What it normalises: `1x64x64x512 in 32 groups over 4096 pixels, f32`."""
        words = ["x".join(map(str, self.shape))]
        kind = "interleaved groups" if self.interleaved else "groups"
        words += [f"in {self.groups} {kind}"] if self.groups > 1 else []
        words += [f"over {self.pixels} pixels"] if self.pixels > 1 else []
        return f"{' '.join(words)}, {self.dtype}"

    def collapsed(self) -> Norm:
        """The same on as few axes as it takes, at least one in front of the channels."""
        axes = merged_axes(self.shape, self.extras, keeps_last=True)
        extras = tuple(replace(extra, shape=merged(extra.shape, axes)) for extra in self.extras)
        return replace(self, shape=merged(self.shape, axes), extras=extras)

    def of_extent(self, extent: int, pixels: int) -> Norm:
        """The same for another extent of the outermost axis, and another number of pixels."""
        extras = tuple(replace(e, shape=(min(e.shape[0], extent), *e.shape[1:])) for e in self.extras)
        return replace(self, shape=(extent, *self.shape[1:]), pixels=pixels, extras=extras)

    def any_batch(self) -> Norm:
        """The same, collapsed, for any extent of the outermost axis and any number of pixels, which are run-time
        values: the key its text is cached by. Extents above 1 along that axis have the mark 2, and so have pixels."""
        return self.collapsed().of_extent(2, min(self.pixels, 2))
