"""Running a kernel on random inputs, and looking at what it wrote."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import mlx.core as mx
import numpy as np

from convjit.kernel import AnyKernel, Elementwise, Kernel, Norm, Pool, PoolGradient, Rearrange, Softmax
from convjit.proof import (
    Run,
    Verdict,
    WrongOutput,
    convolution,
    elementwise,
    norm,
    oracle,
    pool,
    pool_gradient,
    rearrange,
    softmax,
)
from convjit.proof.oracle import Bounds, Outputs, Stored
from convjit.schedule import Schedule


class _Kind(Protocol):
    """A module that knows how kernels of a kind prove themselves."""

    def inputs(self, kernel: Any, generator: np.random.Generator) -> list[mx.array]:
        """Random operands."""
        ...

    def checks(
        self,
        kernel: Any,
        schedule: Schedule,
        arrays: Sequence[Stored],
        results: Sequence[Stored],
        generator: np.random.Generator,
    ) -> list[tuple[Outputs, Bounds]]:
        """For each result, where to look, and what must be there."""
        ...


_KINDS: dict[type[AnyKernel], _Kind] = {
    Elementwise: elementwise,
    Kernel: convolution,
    Norm: norm,
    Pool: pool,
    PoolGradient: pool_gradient,
    Rearrange: rearrange,
    Softmax: softmax,
}

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
    checks = _KINDS[type(kernel)].checks(kernel, schedule, read, results, generator)
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


def inputs(kernel: AnyKernel, generator: np.random.Generator) -> list[mx.array]:
    """Random operands, so that results are about as large as 1 and none of them can stand for another."""
    return _KINDS[type(kernel)].inputs(kernel, generator)
