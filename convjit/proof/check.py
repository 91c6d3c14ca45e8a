"""Running a kernel on random inputs, and looking at what it wrote."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import numpy as np

from convjit.backends import MLX_DTYPES
from convjit.kernel import AnyKernel, Elementwise, Kernel, Norm, Pool, Softmax
from convjit.proof import Run, Verdict, WrongOutput, elementwise, norm, oracle, softmax
from convjit.proof.oracle import Bounds, Outputs, Stored
from convjit.proof.samples import samples, suspects
from convjit.schedule import Schedule
from convjit.schedule.metal.winograd import TEMPLATE as WINOGRAD

_SHOWN = 16
"""Wrong outputs that a verdict lists, of each result."""

_OUT_OF_MEMORY = ("malloc", "out of memory", "insufficient memory")


def check(kernel: AnyKernel, schedule: Schedule, run: Run, seed: int) -> Verdict:
    """Run a kernel once and look at sampled outputs; see `proof.prove`."""
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
    elif isinstance(kernel, Pool):
        outputs = _outputs(kernel, schedule, results, generator)
        checks = [(outputs, oracle.bounds_of_pool(kernel, read[0], outputs))]
    elif isinstance(kernel, Softmax):
        checks = softmax.checks(kernel, schedule, read, results, generator)
    elif isinstance(kernel, Norm):
        checks = norm.checks(kernel, schedule, read, results, generator)
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
    outputs = _outputs(kernel, schedule, results, generator)
    products = kernel.dtype if schedule.template == WINOGRAD else "f32"
    return [(outputs, bounds) for bounds in oracle.bounds(kernel, arrays, outputs, products)]


def _outputs(
    kernel: Kernel | Pool, schedule: Schedule, results: Sequence[Stored], generator: np.random.Generator
) -> Outputs:
    """The sampled outputs, and those that are not finite."""
    chosen = samples(kernel, schedule, generator)
    more = [np.unravel_index(suspects(r), r.shape) for r in results]
    return tuple(np.concatenate(axis) for axis in zip(chosen, *more, strict=True))


def inputs(kernel: AnyKernel, generator: np.random.Generator) -> list[mx.array]:
    """Random operands, see `Kernel.operand_shapes`, and extras, so that results are about as large as 1."""
    if isinstance(kernel, Elementwise):
        return elementwise.inputs(kernel, generator)
    if isinstance(kernel, Pool):
        return [mx.array(_around_zero(generator, kernel.geometry.in_shape)).astype(MLX_DTYPES[kernel.dtype])]
    if isinstance(kernel, Norm):
        return norm.inputs(kernel, generator)
    if isinstance(kernel, Softmax):
        return softmax.inputs(kernel, generator)
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
