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
import numpy.typing as npt

from convjit.backends import MLX_DTYPES, Backend, Call, Stretch
from convjit.kernel import Kernel
from convjit.proof import oracle
from convjit.proof.oracle import Outputs, Stored
from convjit.proof.samples import samples
from convjit.schedule import Schedule
from convjit.schedule.metal.winograd import TEMPLATE as WINOGRAD

SEED = 0
_SHOWN = 16
"""Wrong outputs that a verdict lists, of each result."""
_SUSPECTS = 64
"""Outputs that are not finite and are checked besides the samples, at most."""
_OUT_OF_MEMORY = ("malloc", "out of memory", "insufficient memory")

Run = Callable[[Sequence[mx.array]], Sequence[mx.array]]
"""A kernel: input, weight (O, *kernel, C / groups) and extras -> its results."""


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


def prove(kernel: Kernel, schedule: Schedule, run: Run, seed: int = SEED) -> Verdict:
    """Run a kernel once and look at sampled outputs."""
    generator = np.random.default_rng(seed)
    arrays = inputs(kernel, generator)
    try:
        results = [oracle.stored(r) for r in run(arrays)]
    except Exception as e:
        text = f"{type(e).__name__}: {e}"
        out_of_memory = isinstance(e, MemoryError) or any(words in text.lower() for words in _OUT_OF_MEMORY)
        return Verdict(error=text, is_lasting=not out_of_memory)
    expected_shape = kernel.result_shape
    if any(r.shape != expected_shape for r in results):
        return Verdict(error=f"results have shapes {[r.shape for r in results]} instead of {expected_shape}")
    outputs = _with_suspects(samples(kernel, schedule, generator), results)
    wrong, deviation, examples = 0, 0.0, list[WrongOutput]()
    products = kernel.dtype if schedule.template == WINOGRAD else "f32"
    bounds = oracle.bounds(kernel, [oracle.stored(a) for a in arrays], outputs, products)
    for number, (result, bound) in enumerate(zip(results, bounds, strict=True)):
        actual = oracle.pick(result, outputs)
        deviation = max(deviation, bound.deviation(actual))
        found = np.flatnonzero(bound.wrong(actual))
        wrong += len(found)
        for i in found[:_SHOWN]:
            index = tuple(int(axis[i]) for axis in outputs)
            examples.append(WrongOutput(number, index, float(actual[i]), float(bound.low[i]), float(bound.high[i])))
    return Verdict("", len(outputs[0]) * len(results), wrong, tuple(examples), deviation)


def inputs(kernel: Kernel, generator: np.random.Generator) -> list[mx.array]:
    """Random operands, see `Kernel.operand_shapes`, and extras, so that results are about as large as 1."""
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


def _with_suspects(outputs: Outputs, results: Sequence[Stored]) -> Outputs:
    """`outputs`, and some that are not finite: an output that no thread wrote is NaN, wherever it is."""
    suspects = [np.argwhere(~np.isfinite(r))[:_SUSPECTS] for r in results]
    together: npt.NDArray[np.int64] = np.concatenate([np.stack(outputs, axis=1), *suspects])
    return tuple(together.T)


def runner(backend: Backend, kernel: Kernel, schedule: Schedule) -> Run:
    """`kernel` on `backend`, its outputs poisoned.

    The function raises:
        Exception: of any kind, if the kernel cannot be made, compiled or run.
    """

    def run(arrays: Sequence[mx.array]) -> list[mx.array]:
        x, w, *extras = arrays
        count = len(arrays)
        results = tuple(range(count, count + len(kernel.result_dtypes)))
        stretch = Stretch(count, (Call(kernel, schedule, tuple(range(count)), results),), results, poisoned=True)
        packed = backend.pack(kernel.geometry.window, schedule, w)
        return backend.load(stretch)([x, packed, *extras])

    return run


def for_proof(kernel: Kernel, schedule: Schedule) -> Kernel:
    """The same kernel for as few images as show every way it treats them: a full tile of images and one more; where it
    sums over them, two blocks of pixels for each part."""
    tile = int(dict(schedule.choices).get("images", 1))
    if kernel.operation == "weight_gradient":
        pixels = prod(schedule.number(n) for n in ("row_block", "column_block", "segments"))
        tile = ceil(2 * schedule.number("parts") * pixels / prod(kernel.geometry.out_size))
    batch = min(kernel.geometry.batch, tile + 1)
    extras = tuple(replace(e, shape=(min(e.shape[0], batch), *e.shape[1:])) for e in kernel.extras)
    return replace(kernel, geometry=replace(kernel.geometry, batch=batch), extras=extras)
