"""What a backend is: "can this template take this kernel?" and "make it callable"."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import mlx.core as mx

from convjit.geometry import Window
from convjit.guards.watch import Watch
from convjit.kernel import AnyKernel, Kernel, Pack
from convjit.schedule import Schedule

MLX_DTYPES = {"f32": mx.float32, "f16": mx.float16, "bf16": mx.bfloat16}
"""The storage types of kernels, as MLX's."""


@dataclass(frozen=True, slots=True)
class Call:
    """One kernel inside a stretch, between values numbered: the stretch's inputs first, then the calls' results."""

    kernel: AnyKernel | Pack
    schedule: Schedule
    inputs: tuple[int, ...]
    """Values read: the convolution's input, its packed weight, then the extras; or what elementwise ops read."""
    results: tuple[int, ...]
    """Values written, one for each of the kernel's results."""
    shapes: tuple[tuple[int, ...], ...] = ()
    """Of the values written, where the program knows them by other axes than the kernel does."""

    has_own_weights: bool = False
    """Has each image a packed weight of its own, one behind the other?"""

    @property
    def result_shapes(self) -> tuple[tuple[int, ...], ...]:
        return self.shapes or self.kernel.result_shapes


@dataclass(frozen=True, slots=True)
class Stretch:
    """Kernels that run back to back: the unit of execution."""

    num_inputs: int
    calls: tuple[Call, ...]
    outputs: tuple[int, ...]
    prepared: frozenset[int] = frozenset()
    """Inputs that the program itself made and keeps, such as packed weights: nobody writes into them."""
    poisoned: bool = False
    """Are outputs to hold NaN before the kernels write them? For proofs: what is not written shows."""

    @classmethod
    def of_kernel(cls, kernel: AnyKernel, schedule: Schedule, *, poisoned: bool = False) -> Stretch:
        """One kernel by itself: what it reads comes in, in its order, and all of its results go out."""
        extras = len(kernel.extras) if isinstance(kernel, Kernel) else 0
        read = tuple(range(len(kernel.operand_shapes) + extras))
        results = tuple(range(len(read), len(read) + len(kernel.result_dtypes)))
        return cls(len(read), (Call(kernel, schedule, read, results),), results, poisoned=poisoned)


Runner = Callable[[Sequence[mx.array]], list[mx.array]]
"""Runs a stretch: its input arrays in, its output arrays out. Neither keeps nor changes its inputs."""


@dataclass(frozen=True, slots=True)
class Expected:
    """Of which calls a quick one is to give the result.

    Attributes:
        watch: everything that they depend on besides their arguments; it must be unchanged.
        arguments: an array stands for all of its shape and dtype, anything else for itself.
    """

    watch: Watch
    arguments: tuple[Any, ...]


QuickCall = Callable[[tuple[Any, ...]], mx.array | None]
"""Takes the arguments of a call, and gives its result; None if it cannot tell, and nothing has happened."""


@runtime_checkable
class HasQuickCall(Protocol):
    """A runner that can do all of a call by itself, if the program is nothing but its stretch."""

    def quick_call(self, expected: Expected, inputs: Sequence[int | mx.array]) -> QuickCall | None:
        """The quick call, or None where there cannot be one.

        Args:
            expected: the calls.
            inputs: of the stretch: arrays that stay while the watch is unchanged, or numbers among the array arguments.
        """
        ...


class BackendError(RuntimeError):
    """A backend cannot make a kernel callable: no compiler, a failed compile. The message says what would help."""


class Backend(Protocol):
    """A way to run kernels. One instance a process; every method may be called from any thread."""

    name: str
    needs_proof: bool
    """Do kernels run on hardware, and so have to prove themselves there (`convjit.proof.trust`)?"""

    def fingerprint(self) -> str:
        """What compiled artefacts depend on beyond their text: compiler, flags, CPU or device, versions."""
        ...

    def machine(self) -> str:
        """What the speed of kernels, and the schedules to choose from, depend on besides: cores, caches, threads."""
        ...

    def schedule(self, kernel: AnyKernel) -> Schedule | str:
        """How to run `kernel`, or, in a few words, why this backend cannot take it."""
        ...

    def candidates(self, kernel: Kernel) -> list[Schedule]:
        """Schedules worth measuring, presumably best first: that of `schedule`, if it has one, and others."""
        ...

    def smaller(self, kernel: AnyKernel, schedule: Schedule) -> Schedule | None:
        """What to run in place of a schedule that failed here: one that asks less of compiler and device, if any."""
        ...

    def identity(self, kernel: AnyKernel, schedule: Schedule) -> str:
        """All that the machine code of a kernel is made from, whatever its batch. Equal text, equal verdict."""
        ...

    def pack(self, window: Window, schedule: Schedule, weight: mx.array) -> mx.array:
        """`weight` (O, *kernel, C / groups) in the order in which a kernel with this window and schedule reads it.

        Runs once a weight version; evaluates `weight`.
        """
        ...

    def packer(self, window: Window, schedule: Schedule) -> Callable[[mx.array], mx.array]:
        """`pack` for one place of a program that packs in every call."""
        ...

    def source(self, kernel: AnyKernel, schedule: Schedule) -> str:
        """The text of the kernel: Metal or C."""
        ...

    def compile(self, work: Sequence[tuple[AnyKernel, Schedule]], progress: Callable[[int, int], None]) -> None:
        """Compile kernels in parallel, so that `load` is quick; `progress(done, total)` is called as it goes.

        Raises:
            BackendError: if one cannot be compiled.
        """
        ...

    def load(self, stretch: Stretch) -> Runner:
        """Make `stretch` callable.

        Raises:
            BackendError: if a kernel cannot be compiled or loaded.
        """
        ...
