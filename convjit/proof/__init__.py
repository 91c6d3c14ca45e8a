"""A kernel proves itself: it runs on random inputs, and sampled outputs are compared with float64 dot products.

The inputs are seeded, of the kernel's own shapes, and never the user's: a first input may well be zeros, which prove
nothing. The output holds NaN before, so what the kernel does not write shows wherever it is. Whatever goes wrong on the
way, an error of the Metal compiler, a limit of the device, is part of the verdict and never an exception.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mlx.core as mx

from convjit.backends import Backend, Stretch
from convjit.kernel import AnyKernel, Kernel
from convjit.proof.small import for_proof
from convjit.schedule import Schedule

__all__ = ["SEED", "Run", "Verdict", "WrongOutput", "for_proof", "prove", "runner"]

SEED = 0

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
