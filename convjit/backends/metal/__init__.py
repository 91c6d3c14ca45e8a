"""The Metal backend: kernels through `mx.fast.metal_kernel`, built lazily like any MLX op."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from math import prod
from typing import Any

import mlx.core as mx

from convjit import simulator
from convjit.backends import MLX_DTYPES, BackendError, Call, Runner, Stretch
from convjit.backends.metal import packing
from convjit.emit import metal as emit
from convjit.emit.epilogue import unsupported
from convjit.emit.metal.dispatch import Dispatch, MetalText, results_among
from convjit.emit.metal.language import METAL
from convjit.geometry import Window
from convjit.kernel import DTYPES, AnyKernel, Elementwise, Kernel, Pack
from convjit.schedule import Schedule
from convjit.schedule.metal import candidates, choose, elementwise, smaller
from convjit.schedule.metal.chip import Chip, this_chip
from convjit.schedule.metal.gemm import MAX_BUFFERS
from convjit.storage.environment import macos_version, mlx_version, os_build


class MetalBackend:
    """Kernels for Apple GPUs. Without a Metal device everything works but evaluating a result."""

    name = "metal"
    needs_proof = True

    def fingerprint(self) -> str:
        return _device()

    def machine(self) -> str:
        return repr(_chip())

    def schedule(self, kernel: AnyKernel) -> Schedule | str:
        if isinstance(kernel, Elementwise):
            return self._schedule_elementwise(kernel)
        if not isinstance(kernel, Kernel):
            return "pools and norms are left to MLX on Metal"
        buffers = 2 + len(kernel.extras) + len(kernel.result_dtypes)
        if buffers > MAX_BUFFERS:
            return f"needs {buffers} buffers; a Metal kernel has {MAX_BUFFERS}"
        if kernel.dtype not in DTYPES:
            return f"cannot read {kernel.dtype}"
        if op := unsupported(kernel.epilogue, METAL):
            return f"cannot write {op} in Metal"
        return choose(kernel, _chip())

    def _schedule_elementwise(self, kernel: Elementwise) -> Schedule | str:
        buffers = len(kernel.operands) + 1 + len(kernel.results) + kernel.has_sums
        if buffers > MAX_BUFFERS:
            return f"needs {buffers} buffers; a Metal kernel has {MAX_BUFFERS}"
        if prod(kernel.shape) > elementwise.MAX_ELEMENTS:
            return f"{prod(kernel.shape)} elements are too many for a Metal kernel"
        if op := unsupported(kernel.body, METAL):
            return f"cannot write {op} in Metal"
        return elementwise.elementwise(kernel, _chip())

    def pack(self, window: Window, schedule: Schedule, weight: mx.array) -> mx.array:
        """`weight` in the order in which the schedule's template reads it."""
        return packing.pack(window, schedule, weight)

    def packer(self, window: Window, schedule: Schedule) -> Callable[[mx.array], mx.array]:
        """`pack` for one window and schedule."""
        return partial(self.pack, window, schedule)

    def candidates(self, kernel: Kernel) -> list[Schedule]:
        if isinstance(self.schedule(kernel), str):
            return []
        return candidates(kernel, _chip(), macos_version())

    def smaller(self, kernel: AnyKernel, schedule: Schedule) -> Schedule | None:
        if isinstance(kernel, Elementwise):
            return elementwise.smaller(kernel, schedule)
        assert isinstance(kernel, Kernel)
        return smaller(kernel, schedule, _chip())

    def dispatches(self, kernel: AnyKernel, schedule: Schedule) -> tuple[Dispatch, ...]:
        """What to launch, in order."""
        return emit.dispatches(kernel, schedule)

    def launches(self, kernel: AnyKernel, schedule: Schedule) -> tuple[simulator.Launch, ...]:
        """The same as MLX hands it to Metal, with the signatures that it writes."""
        if isinstance(kernel, Elementwise):
            arrays = [mx.zeros(o.shape, MLX_DTYPES[o.dtype]) for o in kernel.operands]
        else:
            assert isinstance(kernel, Kernel)
            first, second = (mx.zeros(shape, MLX_DTYPES[kernel.dtype]) for shape in kernel.operand_shapes)
            arrays = [first, self.pack(kernel.geometry.window, schedule, second)]
            arrays += [mx.zeros(e.shape, MLX_DTYPES[e.dtype]) for e in kernel.extras]
        launch = launcher(self.dispatches(kernel, schedule))
        return simulator.capture(lambda *a: launch(a), *arrays).launches

    def source(self, kernel: AnyKernel, schedule: Schedule) -> str:
        """The text of its launches, one after the other."""
        return "\n".join(one.text for one in self.launches(kernel, schedule))

    def identity(self, kernel: AnyKernel, schedule: Schedule) -> str:
        steps = self.dispatches(kernel.any_batch(), schedule)
        return repr([(one.text, one.inputs, one.threadgroup) for one in steps])

    def compile(self, work: Sequence[tuple[AnyKernel, Schedule]], progress: Callable[[int, int], None]) -> None:
        """Nothing to do: MLX compiles a kernel when its result is evaluated for the first time."""
        progress(len(work), len(work))

    def load(self, stretch: Stretch) -> Runner:
        """Issue the kernels of `stretch`; nothing is evaluated."""
        steps: list[tuple[Call, Callable[[Sequence[mx.array]], list[mx.array]]]] = []
        for call in stretch.calls:
            assert not isinstance(call.kernel, Pack), "only the CPU backend packs between kernels"
            steps.append((call, launcher(self.dispatches(call.kernel, call.schedule), stretch.poisoned)))

        def run(inputs: Sequence[mx.array]) -> list[mx.array]:
            values = dict(enumerate(inputs))
            for call, launch in steps:
                results = launch([values[i] for i in call.inputs])
                values.update(zip(call.results, results, strict=True))
            return [values[i] for i in stretch.outputs]

        return run


def launcher(dispatches: Sequence[Dispatch], poisoned: bool = False) -> Callable[[Sequence[mx.array]], list[mx.array]]:
    """A function of a kernel's arrays (input, packed weight, extras, or its operands) that issues its dispatches."""
    steps = [(one, _metal_kernel(one.text)) for one in dispatches]

    def launch(arrays: Sequence[mx.array]) -> list[mx.array]:
        values = [at_least_1d(a) for a in arrays]
        outputs: list[list[mx.array]] = []
        for one, metal_kernel in steps:
            outputs.append(_issue(one, metal_kernel, values, poisoned))
            values += outputs[-1]
        return results_among(dispatches, outputs)

    return launch


def _issue(one: Dispatch, metal_kernel: Any, values: Sequence[mx.array], poisoned: bool) -> list[mx.array]:
    return metal_kernel(
        inputs=[*(values[i] for i in one.inputs), *one.sizes],
        grid=one.grid,
        threadgroup=one.threadgroup,
        output_shapes=[shape for shape, _ in one.outputs],
        output_dtypes=[MLX_DTYPES[dtype] for _, dtype in one.outputs],
        init_value=float("nan") if poisoned else None,
    )


def at_least_1d(array: mx.array) -> mx.array:
    """MLX hands an array of rank 0 to a kernel as a reference, which has no elements to index."""
    return array if array.ndim else array.reshape(1)


def _chip() -> Chip:
    try:
        return this_chip()
    except ValueError as error:
        raise BackendError(str(error)) from error


@cache
def _device() -> str:
    device = mx.device_info() if mx.metal.is_available() else {}
    names = [device.get("architecture", "no device"), device.get("device_name", "")]
    return f"metal, {', '.join(map(str, names))}, {os_build()}, mlx {mlx_version()}"


@cache
def _metal_kernel(text: MetalText) -> Any:
    return mx.fast.metal_kernel(
        name=text.name, input_names=text.inputs, output_names=text.outputs, source=text.body, header=text.header
    )
