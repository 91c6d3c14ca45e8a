"""The Metal text of one kernel a template, to be read: tests/golden/metal. To rewrite it: pytest --update-golden."""

from __future__ import annotations

from dataclasses import replace

import pytest
import test_cpu_weight_gradient
from kernels import BACKEND, bias_silu

from convjit.geometry import Geometry, Window
from convjit.kernel import Extra, Kernel
from convjit.schedule import Schedule
from convjit.schedule.metal import candidates, choose
from convjit.schedule.metal.chip import CHIPS

ONE, SAME = (1, 1), (1, 1)


def kernel_of(x: tuple[int, ...], w: tuple[int, ...], window: Window, dtype: str = "f16") -> Kernel:
    """A convolution, a bias and SiLU."""
    geometry = Geometry.of_shapes(x, w, window)
    extra = Extra((*(1,) * (len(x) - 1), w[0]), dtype)
    return Kernel(geometry, dtype, (extra,), bias_silu(dtype), (dtype,))


KERNELS = {
    "direct": kernel_of((1, 12, 12, 3), (16, 3, 3, 3), Window((2, 2), SAME, SAME, ONE, ONE)),
    "gemm": kernel_of((1, 28, 28, 64), (64, 3, 3, 64), Window(ONE, SAME, SAME, ONE, ONE)),
    "gemm_pointwise_1d": kernel_of((1, 100, 33), (20, 1, 33), Window((1,), (0,), (0,), (1,), (1,)), "bf16"),
    "gemm_transposed": kernel_of((1, 16, 16, 32), (32, 4, 4, 32), Window(ONE, (2, 2), (2, 2), ONE, (2, 2), flip=True)),
    "gemm_split": kernel_of((1, 7, 7, 512), (32, 3, 3, 512), Window(ONE, SAME, SAME, ONE, ONE)),
    "gather": kernel_of((1, 28, 28, 64), (64, 3, 3, 64), Window(ONE, SAME, SAME, ONE, ONE), "f32"),
    "stem": kernel_of((1, 32, 32, 3), (32, 7, 7, 3), Window((2, 2), (3, 3), (3, 3), ONE, ONE)),
    "grouped": kernel_of((1, 28, 28, 32), (32, 3, 3, 4), Window(ONE, SAME, SAME, ONE, ONE, groups=8)),
    "depthwise": kernel_of((1, 28, 28, 32), (32, 3, 3, 1), Window(ONE, SAME, SAME, ONE, ONE, groups=32)),
    "winograd": kernel_of((1, 28, 28, 32), (32, 3, 3, 32), Window(ONE, SAME, SAME, ONE, ONE), "f32"),
}


WEIGHT_GRADIENTS = {
    "weight_gradient": Geometry.of_shapes((4, 28, 28, 32), (64, 3, 3, 32), Window((2, 2), SAME, SAME, ONE, ONE)),
    "weight_gradient_direct": Geometry.of_shapes(
        (4, 28, 28, 32), (32, 3, 3, 1), Window(ONE, SAME, SAME, ONE, ONE, groups=32)
    ),
}


def schedule_of(name: str) -> Schedule:
    wanted = name.split("_")[0]
    kernel = replace(KERNELS[name], accuracy="fastest")
    return next(s for s in candidates(kernel, CHIPS["M3 Pro"]) if s.template.startswith(f"metal/{wanted}"))


@pytest.mark.parametrize("name", KERNELS)
def test_text(name: str, golden) -> None:
    golden(f"metal/{name}.metal", BACKEND.source(KERNELS[name], schedule_of(name)))


@pytest.mark.parametrize("name", WEIGHT_GRADIENTS)
def test_text_of_a_weight_gradient(name: str, golden) -> None:
    kernel = test_cpu_weight_gradient.kernel_of(WEIGHT_GRADIENTS[name], "f16")
    schedule = choose(kernel, CHIPS["M3 Pro"])
    assert schedule.template == f"metal/{name}.metal"
    golden(f"metal/{name}.metal", BACKEND.source(kernel, schedule))
