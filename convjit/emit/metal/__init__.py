"""A kernel and its schedule as Metal: one module and one template under `templates/metal/` for each way to compute."""

from __future__ import annotations

from collections.abc import Callable

from convjit.emit.metal import (
    depthwise,
    direct,
    elementwise,
    gather,
    gemm,
    grouped,
    stem,
    tensor_ops,
    weight_gradient,
    winograd,
)
from convjit.emit.metal.dispatch import Dispatch
from convjit.kernel import AnyKernel, Elementwise, Kernel
from convjit.schedule import Schedule

_TEMPLATES: dict[str, Callable[[Kernel, Schedule], tuple[Dispatch, ...]]] = {
    "metal/depthwise.metal": depthwise.dispatches,
    "metal/direct.metal": direct.dispatches,
    "metal/gemm.metal": gemm.dispatches,
    "metal/grouped.metal": grouped.dispatches,
    "metal/tensor_ops.metal": tensor_ops.dispatches,
    "metal/weight_gradient.metal": weight_gradient.dispatches,
    "metal/weight_gradient_direct.metal": weight_gradient.direct_dispatches,
    "metal/winograd": winograd.dispatches,
    "metal/stem.metal": stem.dispatches,
    "metal/gather.metal": gather.dispatches,
}


def dispatches(kernel: AnyKernel, schedule: Schedule) -> tuple[Dispatch, ...]:
    """What to launch, in order, for `kernel` with its own batch."""
    if isinstance(kernel, Elementwise):
        return elementwise.dispatches(kernel, schedule)
    assert isinstance(kernel, Kernel)
    return _TEMPLATES[schedule.template](kernel, schedule)
