"""The C text of one kernel a template, to be read: tests/golden/cpu. To rewrite it: pytest --update-golden."""

from __future__ import annotations

import pytest

from benchmarks.layers.ours import kernel_of
from convjit.emit.cpu import source
from convjit.geometry import Geometry, Window
from convjit.kernel import (
    Elementwise,
    Epilogue,
    Extra,
    Instruction,
    Kernel,
    Norm,
    Part,
    Pool,
    PoolGradient,
    Rearrange,
    Result,
    Softmax,
    identity_epilogue,
)
from convjit.schedule.cpu import candidates, choose
from convjit.schedule.cpu.machine import Machine

ONE, SAME = (1, 1), (1, 1)

GEOMETRIES = {
    "direct": Geometry.of_shapes((1, 56, 56, 64), (64, 5, 5, 64), Window((2, 2), (2, 2), (2, 2), ONE, ONE)),
    "depthwise": Geometry.of_shapes((1, 28, 28, 64), (64, 3, 3, 1), Window(ONE, SAME, SAME, ONE, ONE, groups=64)),
    "dot": Geometry.of_shapes((1, 64, 64, 64), (3, 3, 3, 64), Window(ONE, SAME, SAME, ONE, ONE)),
    "winograd": Geometry.of_shapes((1, 56, 56, 64), (64, 3, 3, 64), Window(ONE, SAME, SAME, ONE, ONE)),
}


def test_text_of_a_weight_gradient(golden) -> None:
    geometry = Geometry.of_shapes((1, 16, 16, 32), (32, 3, 3, 32), Window(ONE, SAME, SAME, ONE, ONE))
    kernel = Kernel(geometry, "f32", (), identity_epilogue("f32"), ("f32",), operation="weight_gradient")
    golden("cpu/weight_gradient.c", source(kernel, candidates(kernel, Machine(16, 32))[0]).text)


def test_text_of_elementwise_ops(golden) -> None:
    """The square of what is centered, and its sum: a variance."""
    operands = (Extra((8, 16, 16, 20), "f32"), Extra((1, 1, 1, 20), "f32"), Extra((1, 1, 1, 20), "f32"))
    body = Epilogue(
        ("f32", "f32", "f32"),
        (
            Instruction("arith.mulf", (1, 2), "f32"),
            Instruction("arith.subf", (0, 3), "f32"),
            Instruction("arith.mulf", (4, 4), "f32"),
        ),
        (4, 5),
    )
    kernel = Elementwise((8, 16, 16, 20), operands, body, (Result((8, 16, 16, 20), "f32"), Result((20,), "f32", True)))
    golden("cpu/elementwise.c", source(kernel, choose(kernel, Machine(16, 32))).text)


def test_text_of_a_pool(golden) -> None:
    window = Window((2, 2), SAME, SAME, ONE, ONE, groups=20)
    geometry = Geometry.of_shapes((1, 56, 56, 20), (20, 3, 3, 1), window)
    kernel = Pool("max", geometry, "f32", geometry.out_shape)
    golden("cpu/pool.c", source(kernel, choose(kernel, Machine(16, 32))).text)


def test_text_of_the_gradient_of_a_pool(golden) -> None:
    window = Window((2, 2), SAME, SAME, ONE, ONE, groups=20)
    kernel = PoolGradient(Geometry.of_shapes((1, 56, 56, 20), (20, 3, 3, 1), window), "bf16")
    golden("cpu/pool_gradient.c", source(kernel, choose(kernel, Machine(16, 32))).text)


def test_text_of_a_norm(golden) -> None:
    """A GroupNorm with scale and shift."""
    instructions = (Instruction("arith.mulf", (0, 1), "f32"), Instruction("arith.addf", (3, 2), "f32"))
    per_channel = Extra((1, 1, 1, 40), "f32")
    epilogue = Epilogue(("f32", "f32", "f32"), instructions, (4,))
    kernel = Norm((1, 56, 56, 40), 56 * 56, 8, False, 1e-5, True, "f32", (per_channel, per_channel), epilogue, ("f32",))
    golden("cpu/norm.c", source(kernel, choose(kernel, Machine(16, 32))).text)


def test_text_of_a_softmax(golden) -> None:
    kernel = Softmax((8, 99, 99), "f32")
    golden("cpu/softmax.c", source(kernel, choose(kernel, Machine(16, 32))).text)


def test_text_of_a_rearrangement(golden) -> None:
    part = Part((64, 8), 0, (8, 1), 0, (24, 1))
    kernel = Rearrange((64, 8), "f32", ((64, 8),), (part,))
    golden("cpu/rearrange.c", source(kernel, choose(kernel, Machine(16, 32))).text)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_text(name: str, golden) -> None:
    kernel = kernel_of(GEOMETRIES[name], "f32")
    schedule = next(s for s in candidates(kernel, Machine(16, 32)) if s.template == f"cpu/{name}.c")
    golden(f"cpu/{name}.c", source(kernel, schedule).text)
