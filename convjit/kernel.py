"""A kernel to be written: a convolution or a norm and its epilogue, elementwise ops, or a pool, as frozen values.

This is what passes hand to schedules, templates and backends: hashable, printable, and buildable by hand in a
test. No IR, no MLX, no text of any language.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Literal

from convjit.geometry import Geometry

DTYPES = {"f32": 4, "f16": 2, "bf16": 2}
"""The storage types a kernel reads and writes, with their sizes in bytes."""


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
class Instruction:
    """One scalar op of an epilogue, in the order of evaluation.

    Attributes:
        op: the name of an `arith` or `math` op, such as "arith.addf", "math.exp", "arith.cmpf", "arith.select".
        operands: value numbers: inputs of the epilogue first, then one a preceding instruction.
        type: the type of the result: "f32", "f16", "bf16" or "i1". All arithmetic is done in f32; the half types
            only come out of `arith.truncf` and go into `arith.extf`.
        attribute: the predicate of "arith.cmpf" ("ogt", "uno", ...), the value of "arith.constant", else None.
    """

    op: str
    operands: tuple[int, ...]
    type: str
    attribute: str | float | bool | None = None


@dataclass(frozen=True, slots=True)
class Epilogue:
    """What happens to every output element between the sum and the store.

    Value 0 is the sum (f32), values 1.. are the matching elements of the extras, the rest are the instructions'.
    """

    inputs: tuple[str, ...]
    instructions: tuple[Instruction, ...]
    results: tuple[int, ...]

    def type_of(self, value: int) -> str:
        if value < len(self.inputs):
            return self.inputs[value]
        return self.instructions[value - len(self.inputs)].type


@dataclass(frozen=True, slots=True)
class Extra:
    """An array that the epilogue reads: a bias, a residual, a scale.

    `shape` has the rank of the output, 1 on every axis along which it is broadcast.
    """

    shape: tuple[int, ...]
    dtype: str


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


def identity_epilogue(dtype: str) -> Epilogue:
    """The epilogue of a bare convolution: round once, store."""
    if dtype == "f32":
        return Epilogue(("f32",), (), (0,))
    return Epilogue(("f32",), (Instruction("arith.truncf", (0,), dtype),), (1,))


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
        axes = _merged_axes(self.shape, self.operands, keeps_last=self.has_sums)
        operands = tuple(replace(operand, shape=_merged(operand.shape, axes)) for operand in self.operands)
        return replace(self, shape=_merged(self.shape, axes), operands=operands)

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


def _merged_axes(shape: tuple[int, ...], operands: tuple[Extra, ...], *, keeps_last: bool) -> list[list[int]]:
    """The axes that become one each: neighbours along which the same operands vary. At least one, and another in front
    of the last if that keeps to itself."""
    last = len(shape) - 1
    groups: list[tuple[tuple[bool, ...], list[int]]] = []
    for axis, extent in enumerate(shape):
        varying = tuple(operand.shape[axis] > 1 for operand in operands)
        by_itself = keeps_last and axis == last
        if extent == 1 and not by_itself:
            continue
        if groups and groups[-1][0] == varying and not by_itself:
            groups[-1][1].append(axis)
        else:
            groups.append((varying, [axis]))
    axes = [axes for _, axes in groups]
    return axes if len(axes) > keeps_last else [[], *axes]


def _merged(shape: tuple[int, ...], axes: list[list[int]]) -> tuple[int, ...]:
    return tuple(prod(shape[axis] for axis in group) for group in axes)


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
class Norm:
    """(x - mean) / sqrt(variance + eps), and an epilogue: LayerNorm, GroupNorm, InstanceNorm, RMSNorm.

    Attributes:
        shape: of the input and of the results; the last axis is that of the channels.
        pixels: how many neighbours, counted through all other axes, have statistics together: all of an image, or 1.
        groups: of channels, with statistics of their own.
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
        words += [f"in {self.groups} groups"] if self.groups > 1 else []
        words += [f"over {self.pixels} pixels"] if self.pixels > 1 else []
        return f"{' '.join(words)}, {self.dtype}"

    def collapsed(self) -> Norm:
        """The same on as few axes as it takes, at least one in front of the channels."""
        axes = _merged_axes(self.shape, self.extras, keeps_last=True)
        extras = tuple(replace(extra, shape=_merged(extra.shape, axes)) for extra in self.extras)
        return replace(self, shape=_merged(self.shape, axes), extras=extras)

    def of_extent(self, extent: int, pixels: int) -> Norm:
        """The same for another extent of the outermost axis, and another number of pixels."""
        extras = tuple(replace(e, shape=(min(e.shape[0], extent), *e.shape[1:])) for e in self.extras)
        return replace(self, shape=(extent, *self.shape[1:]), pixels=pixels, extras=extras)

    def any_batch(self) -> Norm:
        """The same, collapsed, for any extent of the outermost axis and any number of pixels, which are run-time
        values: the key its text is cached by. Extents above 1 along that axis have the mark 2, and so have pixels."""
        return self.collapsed().of_extent(2, min(self.pixels, 2))


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


OtherKernel = Elementwise | Pool | Norm | Softmax
"""What is no convolution."""

AnyKernel = Kernel | OtherKernel
"""Whatever a step of a stretch runs."""
