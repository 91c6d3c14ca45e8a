"""The Metal backend's kernels, executed on the host: for tests, and for looking at Metal text without a Mac."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mlx.core as mx

from convjit import simulator
from convjit.backends import BackendError, Runner, Stretch
from convjit.backends.metal import MetalBackend, at_least_1d, launcher
from convjit.emit.metal.dispatch import Dispatch, results_among
from convjit.kernel import AnyKernel
from convjit.schedule import Schedule
from convjit.simulator.compiler import runtime


@dataclass(frozen=True, slots=True)
class Examination:
    """A kernel that was run on the host under the checker.

    Attributes:
        results: what it gave; empty if a kernel does not compile, or did not end.
        findings: of the linter, the type check, the compiler and the checker, each with the check and the kernel.
        counters: what each of its launches did; empty likewise.
    """

    results: list[mx.array]
    findings: tuple[str, ...]
    counters: tuple[simulator.Counters, ...]


class SimulatorBackend(MetalBackend):
    """As `MetalBackend`, but `load` gives a runner whose results are evaluated, by `convjit.simulator`."""

    name = "simulator"
    needs_proof = False

    def fingerprint(self) -> str:
        return f"simulated {super().fingerprint()}"

    def compile(self, work: Sequence[tuple[AnyKernel, Schedule]], progress: Callable[[int, int], None]) -> None:
        """Make sure of a C++ compiler; kernels are compiled when they run for the first time.

        Raises:
            BackendError: if there is none that works.
        """
        try:
            runtime()
        except simulator.CompileError as error:
            raise BackendError(f"the simulator cannot run: {error}") from error
        super().compile(work, progress)

    def load(self, stretch: Stretch) -> Runner:
        """Run the kernels of `stretch` on the host.

        The runner raises:
            simulator.CompileError: if a kernel is not valid C++ or Metal.
            simulator.KernelError: if a kernel does what no kernel may do.
        """
        run_metal = super().load(stretch)

        def run(inputs: Sequence[mx.array]) -> list[mx.array]:
            return simulator.run(lambda *arrays: run_metal(arrays), *(at_least_1d(a) for a in inputs))

        return run

    def examine(self, dispatches: Sequence[Dispatch], arrays: Sequence[mx.array]) -> Examination:
        """Run a kernel under the checker, and check its text.

        Args:
            dispatches: what to run, such as `MetalBackend.dispatches` gives.
            arrays: input, packed weight, extras, or what elementwise ops read.
        """
        values = [at_least_1d(a) for a in arrays]
        launch = launcher(dispatches)
        launches = simulator.capture(lambda *a: launch(a), *values).launches
        findings = [
            f"{name}: {one.name}: {finding}"
            for one in launches
            for name, check in (("lint", simulator.lint), ("type check", simulator.type_check))
            for finding in check(one.text)
        ]
        counters: list[simulator.Counters] = []
        outputs: list[list[mx.array]] = []
        for step, one in zip(dispatches, launches, strict=True):
            try:
                read = [*(values[i] for i in step.inputs), *map(mx.array, step.sizes)]
                done = simulator.execute(one, read, check=True)
            except simulator.CompileError as error:
                return Examination([], (*findings, f"compiler: {one.name}: {error}"), ())
            findings += [f"checker: {one.name}: {finding}" for finding in done.findings]
            if done.counters is None:
                return Examination([], tuple(findings), ())
            counters.append(done.counters)
            outputs.append(done.outputs)
            values += done.outputs
        return Examination(results_among(dispatches, outputs), tuple(findings), tuple(counters))
