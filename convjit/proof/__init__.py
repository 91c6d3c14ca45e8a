"""A kernel proves itself: it runs on random inputs, and sampled outputs are compared with float64 dot products.

The inputs are seeded, of the kernel's own shapes, and never the user's: a first input may well be zeros, which prove
nothing. The output holds NaN before, so what the kernel does not write shows wherever it is. Whatever goes wrong on the
way, an error of the Metal compiler, a limit of the device, is part of the verdict and never an exception.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil, prod

import mlx.core as mx
import numpy as np

from convjit.backends import MLX_DTYPES, Backend, Call, Stretch
from convjit.kernel import AnyKernel, Elementwise, Kernel
from convjit.proof import elementwise, oracle
from convjit.proof.oracle import Bounds, Outputs, Stored
from convjit.proof.samples import samples, suspects
from convjit.schedule import Schedule
from convjit.schedule.metal.winograd import TEMPLATE as WINOGRAD

SEED = 0
_SHOWN = 16
"""Wrong outputs that a verdict lists, of each result."""
_OUT_OF_MEMORY = ("malloc", "out of memory", "insufficient memory")

Run = Callable[[Sequence[mx.array]], Sequence[mx.array]]
"""A kernel: input, weight (O, *kernel, C / groups) and extras, or what elementwise ops read -> its results."""


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
    generator = np.random.default_rng(seed)
    arrays = inputs(kernel, generator)
    try:
        results = [oracle.stored(r) for r in run(arrays)]
    except Exception as e:
        text = f"{type(e).__name__}: {e}"
        out_of_memory = isinstance(e, MemoryError) or any(words in text.lower() for words in _OUT_OF_MEMORY)
        return Verdict(error=text, is_lasting=not out_of_memory)
    shapes = tuple(r.shape for r in results)
    if shapes != kernel.result_shapes:
        return Verdict(error=f"results have shapes {[*shapes]} instead of {[*kernel.result_shapes]}")
    read = [oracle.stored(a) for a in arrays]
    if isinstance(kernel, Elementwise):
        checks = elementwise.checks(kernel, schedule, read, results, generator)
    else:
        checks = _checks(kernel, schedule, read, results, generator)
    checked, wrong, deviation, examples = 0, 0, 0.0, list[WrongOutput]()
    for number, (result, (outputs, bounds)) in enumerate(zip(results, checks, strict=True)):
        actual = oracle.pick(result, outputs)
        deviation = max(deviation, bounds.deviation(actual))
        found = np.flatnonzero(bounds.wrong(actual))
        checked += len(actual)
        wrong += len(found)
        for i in found[:_SHOWN]:
            index = tuple(int(axis[i]) for axis in outputs)
            examples.append(WrongOutput(number, index, float(actual[i]), float(bounds.low[i]), float(bounds.high[i])))
    return Verdict("", checked, wrong, tuple(examples), deviation)


def _checks(
    kernel: Kernel,
    schedule: Schedule,
    arrays: Sequence[Stored],
    results: Sequence[Stored],
    generator: np.random.Generator,
) -> list[tuple[Outputs, Bounds]]:
    """For each result, where to look, everywhere at the same outputs, and what must be there."""
    chosen = samples(kernel, schedule, generator)
    more = [np.unravel_index(suspects(r), r.shape) for r in results]
    outputs = tuple(np.concatenate(axis) for axis in zip(chosen, *more, strict=True))
    products = kernel.dtype if schedule.template == WINOGRAD else "f32"
    return [(outputs, bounds) for bounds in oracle.bounds(kernel, arrays, outputs, products)]


def inputs(kernel: AnyKernel, generator: np.random.Generator) -> list[mx.array]:
    """Random operands, see `Kernel.operand_shapes`, and extras, so that results are about as large as 1."""
    if isinstance(kernel, Elementwise):
        return elementwise.inputs(kernel, generator)
    first, second = kernel.operand_shapes
    x = _around_zero(generator, first)
    w = _around_zero(generator, second) / np.float32(kernel.terms**0.5)
    # Positive, so that no logarithm, root or quotient of theirs is NaN.
    extras = [generator.uniform(0.25, 1.75, e.shape).astype(np.float32) for e in kernel.extras]
    dtypes = [kernel.dtype, kernel.dtype, *(e.dtype for e in kernel.extras)]
    return [mx.array(a).astype(MLX_DTYPES[d]) for a, d in zip([x, w, *extras], dtypes, strict=True)]


def _around_zero(generator: np.random.Generator, shape: tuple[int, ...]) -> Stored:
    """Uniform, of unit variance."""
    return (generator.random(shape, np.float32) - np.float32(0.5)) * np.float32(12**0.5)


def runner(backend: Backend, kernel: AnyKernel, schedule: Schedule) -> Run:
    """`kernel` on `backend`, its outputs poisoned.

    The function raises:
        Exception: of any kind, if the kernel cannot be made, compiled or run.
    """

    def run(arrays: Sequence[mx.array]) -> list[mx.array]:
        count = len(arrays)
        results = tuple(range(count, count + len(kernel.result_dtypes)))
        stretch = Stretch(count, (Call(kernel, schedule, tuple(range(count)), results),), results, poisoned=True)
        read = list(arrays)
        if isinstance(kernel, Kernel):
            read[1] = backend.pack(kernel.geometry.window, schedule, read[1])
        return backend.load(stretch)(read)

    return run


def for_proof(kernel: AnyKernel, schedule: Schedule) -> AnyKernel:
    """The same kernel for as few images or rows as show every way it treats them."""
    if isinstance(kernel, Elementwise):
        return elementwise.for_proof(kernel, schedule)
    return of_few_images(kernel, schedule)


def of_few_images(kernel: Kernel, schedule: Schedule) -> Kernel:
    """The same convolution for a full tile of images and one more; where they are summed, two blocks a part."""
    tile = int(dict(schedule.choices).get("images", 1))
    if kernel.operation == "weight_gradient":
        pixels = prod(schedule.number(n) for n in ("row_block", "column_block", "segments"))
        tile = ceil(2 * schedule.number("parts") * pixels / prod(kernel.geometry.out_size))
    batch = min(kernel.geometry.batch, tile + 1)
    extras = tuple(replace(e, shape=(min(e.shape[0], batch), *e.shape[1:])) for e in kernel.extras)
    return replace(kernel, geometry=replace(kernel.geometry, batch=batch), extras=extras)
