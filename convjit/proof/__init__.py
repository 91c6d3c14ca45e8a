"""A kernel proves itself: it runs on random inputs, and sampled outputs are compared with float64 dot products.

The inputs are seeded, of the kernel's own shapes, and never the user's: a first input may well be zeros, which prove
nothing. The output holds NaN before, so what the kernel does not write shows wherever it is. Whatever goes wrong on the
way, an error of the Metal compiler, a limit of the device, is part of the verdict and never an exception.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil, gcd, prod

import mlx.core as mx

from convjit.backends import Backend, Stretch
from convjit.kernel import AnyKernel, Elementwise, Kernel, Norm, Pool, PoolGradient, Softmax
from convjit.schedule import Schedule

SEED = 0

_BLOCK_OF_PIXELS = ("row_block", "column_block", "segments", "pixels", "chains")
"""Choices whose product, of those that a schedule has, is the pixels that show how a weight gradient takes them."""

Run = Callable[[Sequence[mx.array]], Sequence[mx.array]]
"""A kernel: input, weight (O, *kernel, C / groups) and extras, or what other kernels read -> its results."""


@dataclass(frozen=True, slots=True)
class WrongOutput:
    """An output that a kernel gets wrong.

    Attributes:
        result: the number of the kernel's result.
        index: where in it.
        actual: what the kernel gave.
        low, high: between what it should be.
    """

    result: int
    index: tuple[int, ...]
    actual: float
    low: float
    high: float

    def __str__(self) -> str:
        which = f" of result {self.result}" if self.result else ""
        return f"{self.actual:.6g} at {self.index}{which} where {(self.low + self.high) / 2:.6g} is right"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a proof.

    Attributes:
        error: what the kernel raised, or "".
        checked: how many outputs were looked at.
        wrong: how many of them are wrong.
        examples: the first wrong ones.
        deviation: the largest difference to the exact result, relative to its largest magnitude.
        is_lasting: would it be the same at the next attempt? Not where memory ran out.
    """

    error: str = ""
    checked: int = 0
    wrong: int = 0
    examples: tuple[WrongOutput, ...] = ()
    deviation: float = 0.0
    is_lasting: bool = True

    @property
    def is_right(self) -> bool:
        return not self.error and not self.wrong

    def __str__(self) -> str:
        if self.error:
            return f"its kernel does not run: {_begin(self.error)}"
        if not self.wrong:
            return f"all of {self.checked} sampled outputs are right"
        return f"its kernel gave {self.examples[0]} ({self.wrong} of {self.checked} sampled outputs wrong here)"


def _begin(text: str) -> str:
    """The first two lines of an error: a name, often, and then what is the matter."""
    return " ".join(line.strip() for line in text.strip().splitlines()[:2])[:240]


def prove(kernel: AnyKernel, schedule: Schedule, run: Run, seed: int = SEED) -> Verdict:
    """Run a kernel once and look at sampled outputs."""
    from convjit.proof.check import check  # with NumPy, which processes without a new kernel can do without

    return check(kernel, schedule, run, seed)


def runner(backend: Backend, kernel: AnyKernel, schedule: Schedule) -> Run:
    """`kernel` on `backend`, its outputs poisoned.

    The function raises:
        Exception: of any kind, if the kernel cannot be made, compiled or run.
    """

    def run(arrays: Sequence[mx.array]) -> list[mx.array]:
        read = list(arrays)
        if isinstance(kernel, Kernel):
            read[1] = backend.pack(kernel.geometry.window, schedule, read[1])
        return backend.load(Stretch.of_kernel(kernel, schedule, poisoned=True))(read)

    return run


def for_proof(kernel: AnyKernel, schedule: Schedule) -> AnyKernel:
    """The same kernel for as few images or rows as show every way it treats them."""
    if isinstance(kernel, Elementwise):
        return of_few_rows(kernel, schedule)
    if isinstance(kernel, (Pool, PoolGradient)):
        return kernel.of_batch(min(kernel.geometry.batch, 2))
    if isinstance(kernel, Norm):
        return of_few_pixels(kernel, schedule)
    if isinstance(kernel, Softmax):
        return kernel.of_rows(min(kernel.rows, 2 * schedule.number("row_block") + 1))
    return of_few_images(kernel, schedule)


def of_few_images(kernel: Kernel, schedule: Schedule) -> Kernel:
    """The same convolution for a full tile of images and one more; where they are summed, two blocks a part."""
    choices = dict(schedule.choices)
    tile = int(choices.get("images", 1))
    if kernel.operation == "weight_gradient":
        pixels = prod(int(choices.get(name, 1)) for name in _BLOCK_OF_PIXELS)
        tile = ceil(2 * schedule.number("parts") * pixels / prod(kernel.geometry.out_size))
    batch = min(kernel.geometry.batch, tile + 1)
    extras = tuple(replace(e, shape=(min(e.shape[0], batch), *e.shape[1:])) for e in kernel.extras)
    return replace(kernel, geometry=replace(kernel.geometry, batch=batch), extras=extras)


def of_few_rows(kernel: Elementwise, schedule: Schedule) -> Elementwise:
    """The same kernel, collapsed, for two units and a remainder as it has it: all ways in which it treats elements.

    Where so many threads share the sums of units, for one unit more than there are of them.
    """
    same = kernel.collapsed()
    if len(same.shape) == 1:
        unit, inner = schedule.number("column_block"), 1
    else:
        unit, inner = schedule.number("row_block"), prod(same.shape[1:-1])
    period = unit // gcd(unit, inner)
    units = 1 + int(dict(schedule.choices).get("parts", 1))
    extent = period * ceil(units * unit / (inner * period)) + same.shape[0] % period
    extent = min(same.shape[0], max(2, extent))
    shape = (extent, *same.shape[1:])
    return replace(
        same,
        shape=shape,
        operands=tuple(replace(o, shape=(min(o.shape[0], extent), *o.shape[1:])) for o in same.operands),
        results=tuple(replace(r, shape=shape[-1:] if r.is_sum else shape) for r in same.results),
    )


def of_few_pixels(kernel: Norm, schedule: Schedule) -> Norm:
    """The same kernel, collapsed, for two images of two units and a remainder each, as far as its extras allow."""
    same = kernel.collapsed()
    outermost, *inner, _ = same.shape
    block, pixels = schedule.number("row_block"), same.pixels
    if pixels > 1 and not inner:
        few = min(pixels, 2 * block + pixels % block)
        return same.of_extent(min(same.images, 2) * few, few)
    rows = prod(inner)
    if rows % pixels:
        return same  # its outermost axis is part of an image
    return same.of_extent(min(outermost, 2 * max(block, pixels) // rows + 2), pixels)
