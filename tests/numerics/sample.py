"""Kernels of every kind, drawn with a fixed seed, and numbers for them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from reference import Array, round_to

from convjit.geometry import Geometry, GeometryError, Window, plain_window
from convjit.kernel import Epilogue, Extra, Instruction, Kernel


def random_geometry(rng: np.random.Generator) -> Geometry:
    """Any rank, stride, dilation, padding (negative too), groups and batch; odd channels; many pointwise, depthwise."""
    while True:
        rank = int(rng.integers(1, 4))

        def draw(low: int, high: int, rank: int = rank) -> tuple[int, ...]:
            return tuple(int(v) for v in rng.integers(low, high + 1, rank))

        pointwise, transposed = rng.random() < 0.15, rng.random() < 0.35
        groups = int(rng.choice([1, 1, 1, 2, 3, 5]))
        in_group, out_group = int(rng.choice([1, 2, 3, 5, 8, 17])), int(rng.choice([1, 2, 3, 8, 16, 17, 33, 40, 64]))
        if rng.random() < 0.25:  # depthwise
            groups, in_group, out_group = int(rng.choice([3, 16, 17, 37, 64])), 1, 1
        window = Window(
            strides=draw(1, 3),
            pad_lo=draw(-1, 3),
            pad_hi=draw(-1, 3),
            kernel_dilation=draw(1, 2),
            input_dilation=draw(1, 3) if transposed else (1,) * rank,
            groups=groups,
            flip=bool(rng.random() < (0.8 if transposed else 0.1)),
        )
        if pointwise:
            window = plain_window(rank, groups)
        kernel = (1,) * rank if pointwise else draw(1, 4)
        spatial = draw(1, (40, 12, 6)[rank - 1])
        x = (int(rng.integers(1, 4)), *spatial, in_group * groups)
        try:
            return Geometry.of_shapes(x, (out_group * groups, *kernel, in_group), window)
        except GeometryError:
            continue


def random_kernel(rng: np.random.Generator, dtype: str = "f32", geometry: Geometry | None = None) -> Kernel:
    """A geometry with an epilogue of one or two results: relu((sum * e0) + e1 + e2 ...) and what relu reads.

    The extras broadcast along random axes. Without `geometry`, that is random too.
    """
    geometry = geometry or random_geometry(rng)
    extras: list[Extra] = []
    for _ in range(int(rng.integers(0, 4))):
        kept = rng.random(geometry.rank + 2) < rng.choice([0.0, 0.5, 1.0])
        shape = tuple(n if keep else 1 for n, keep in zip(geometry.out_shape, kept, strict=True))
        extras.append(Extra(shape, dtype if rng.random() < 0.5 else "f32"))
    instructions: list[Instruction] = []

    def add(op: str, *operands: int, type_: str = "f32", attribute: str | float | None = None) -> int:
        instructions.append(Instruction(op, operands, type_, attribute))
        return len(extras) + len(instructions)

    value = 0
    for number, extra in enumerate(extras, 1):
        operand = number if extra.dtype == "f32" else add("arith.extf", number)
        value = add("arith.mulf" if number == 1 else "arith.addf", value, operand)
    for _ in range(int(rng.choice([0, 0, 9]))):  # some templates treat long epilogues in another way
        value = add("arith.addf", value, add("arith.constant", attribute=-0.0))
    zero = add("arith.constant", attribute=0.0)
    relu = add("arith.select", add("arith.cmpf", value, zero, type_="i1", attribute="ugt"), value, zero)
    results = [relu, value] if rng.random() < 0.4 else [relu]
    if dtype != "f32":
        results = [add("arith.truncf", r, type_=dtype) for r in results]
    epilogue = Epilogue(("f32", *(e.dtype for e in extras)), tuple(instructions), tuple(results))
    return Kernel(geometry, dtype, tuple(extras), epilogue, (dtype,) * len(results))


@dataclass(frozen=True)
class Numbers:
    """What a kernel reads, exactly as its storage types hold it."""

    x: Array
    w: Array
    extras: list[Array]


def random_numbers(rng: np.random.Generator, kernel: Kernel) -> Numbers:
    def draw(shape: tuple[int, ...], dtype: str) -> npt.NDArray[np.float64]:
        return round_to(rng.standard_normal(shape), dtype)

    geometry = kernel.geometry
    extras = [draw(e.shape, e.dtype) for e in kernel.extras]
    return Numbers(draw(geometry.in_shape, kernel.dtype), draw(geometry.weight_shape, kernel.dtype), extras)


def layer_geometry(rng: np.random.Generator) -> Geometry:
    """A convolution as networks have them: one kernel size, stride and padding for all axes, up to 100 channels."""
    while True:
        kind = str(rng.choice(["dense", "dense", "dense", "pointwise", "depthwise", "grouped", "transposed", "few"]))
        rank = int(rng.choice([1, 2, 2, 2, 3]))
        kernel = 1 if kind == "pointwise" else int(rng.choice([2, 3, 3, 3, 4, 5, 7]))
        stride = int(rng.choice([1, 1, 2, 3])) if kernel > 1 else 1
        dilation = int(rng.choice([1, 1, 1, 2])) if stride == 1 else 1
        groups = int({"depthwise": rng.choice([8, 16, 30, 64, 70]), "grouped": rng.choice([2, 4, 8])}.get(kind, 1))
        in_group, out_group = (int(rng.choice([3, 4, 8, 16, 17, 32, 48, 100])) for _ in range(2))
        if kind == "depthwise":
            in_group, out_group = 1, int(rng.choice([1, 1, 2, 3]))
        if kind == "few":
            in_group, out_group = (in_group, int(rng.integers(1, 6)))[:: int(rng.choice([1, -1]))]
        one, all_axes = (1,) * rank, (stride,) * rank
        pad = (int(rng.integers(0, kernel)),) * rank
        window = Window(
            strides=one if kind == "transposed" else all_axes,
            pad_lo=pad,
            pad_hi=pad if rng.random() < 0.7 else one,
            kernel_dilation=(dilation,) * rank,
            input_dilation=all_axes if kind == "transposed" else one,
            groups=groups,
            flip=kind == "transposed",
        )
        spatial = tuple(int(n) for n in rng.integers(1, (200, 30, 12)[rank - 1], rank))
        x = (int(rng.integers(1, 4)), *spatial, in_group * groups)
        try:
            geometry = Geometry.of_shapes(x, (out_group * groups, *(kernel,) * rank, in_group), window)
        except GeometryError:
            continue
        if geometry.flops < 200_000_000:
            return geometry
