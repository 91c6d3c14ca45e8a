"""The Metal backend's kernels, executed on the host: for tests, and for looking at Metal text without a Mac."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import mlx.core as mx

from convjit import simulator
from convjit.backends import BackendError, Runner, Stretch
from convjit.backends.metal import MetalBackend, at_least_1d
from convjit.kernel import Kernel
from convjit.schedule import Schedule
from convjit.simulator.compiler import runtime


class SimulatorBackend(MetalBackend):
    """As `MetalBackend`, but `load` gives a runner whose results are evaluated, by `convjit.simulator`."""

    name = "simulator"
    needs_proof = False

    def fingerprint(self) -> str:
        return f"simulated {super().fingerprint()}"

    def compile(self, work: Sequence[tuple[Kernel, Schedule]], progress: Callable[[int, int], None]) -> None:
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
