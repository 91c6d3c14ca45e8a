"""The Metal text of one kernel a template, to be read: tests/golden/metal. To rewrite it: pytest --update-golden."""

from __future__ import annotations

from dataclasses import replace

import pytest
import test_cpu_weight_gradient
from kernels import BACKEND, bias_silu

from convjit.geometry import Geometry, Window
from convjit.kernel import AnyKernel, Elementwise, Epilogue, Extra, Instruction, Kernel, Result
from convjit.schedule import Schedule
from convjit.schedule.metal import candidates, choose
from convjit.schedule.metal.chip import CHIPS
from convjit.schedule.metal.elementwise import elementwise

ONE, SAME = (1, 1), (1, 1)


def kernel_of(x: tuple[int, ...], w: tuple[int, ...], window: Window, dtype: str = "f16") -> Kernel:
    """A convolution, a bias and SiLU."""
    geometry = Geometry.of_shapes(x, w, window)
    extra = Extra((*(1,) * (len(x) - 1), w[0]), dtype)
    return Kernel(geometry, dtype, (extra,), bias_silu(dtype), (dtype,))


def normalisation_backward() -> Elementwise:
    """dy where y > 0, its sum, and the sum of its products with what was normalised: (x - mean) * scale."""
    shape, channels = (8, 32, 32, 16), (1, 1, 1, 16)
    body = (
        Instruction("arith.constant", (), "f32", 0.0),
        Instruction("arith.cmpf", (1, 5), "i1", "ogt"),
        Instruction("arith.select", (6, 0, 5), "f32"),
        Instruction("arith.subf", (2, 3), "f32"),
        Instruction("arith.mulf", (8, 4), "f32"),
        Instruction("arith.mulf", (7, 9), "f32"),
    )
    operands = (*(Extra(shape, "f32") for _ in range(3)), Extra(channels, "f32"), Extra(channels, "f32"))
    results = (Result(shape, "f32"), Result((16,), "f32", True), Result((16,), "f32", True))
    return Elementwise(shape, operands, Epilogue(("f32",) * 5, body, (7, 7, 10)), results)


def momentum() -> Elementwise:
    """A step of SGD: v' = 0.9 v + g, w' = w - rate * v'."""
    body = (
        Instruction("arith.constant", (), "f32", 0.9),
        Instruction("arith.mulf", (4, 1), "f32"),
        Instruction("arith.addf", (5, 2), "f32"),
        Instruction("arith.mulf", (3, 6), "f32"),
        Instruction("arith.subf", (0, 7), "f32"),
    )
    shape = (16, 3, 3, 16)
    operands = (*(Extra(shape, "f32") for _ in range(3)), Extra((1, 1, 1, 1), "f32"))
    return Elementwise(shape, operands, Epilogue(("f32",) * 4, body, (8, 6)), (Result(shape, "f32"),) * 2)


KERNELS: dict[str, AnyKernel] = {
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
    "elementwise": momentum(),
    "elementwise_sums": normalisation_backward(),
}


WEIGHT_GRADIENTS = {
    "weight_gradient": Geometry.of_shapes((4, 28, 28, 32), (64, 3, 3, 32), Window((2, 2), SAME, SAME, ONE, ONE)),
    "weight_gradient_direct": Geometry.of_shapes(
        (4, 28, 28, 32), (32, 3, 3, 1), Window(ONE, SAME, SAME, ONE, ONE, groups=32)
    ),
}


def schedule_of(name: str) -> Schedule:
    wanted = name.split("_")[0]
    kernel = KERNELS[name]
    if isinstance(kernel, Elementwise):
        return elementwise(kernel, CHIPS["M3 Pro"])
    kernel = replace(kernel, accuracy="fastest")
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
