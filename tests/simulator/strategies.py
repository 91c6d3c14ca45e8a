"""Hypothesis strategies: any convolution, any storage type, any epilogue, any of its schedules on Metal."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from hypothesis import reject
from hypothesis import strategies as st
from kernels import Writer, loaded, maximum, silu, stored
from test_cpu_weight_gradient import kernel_of

from convjit.geometry import Geometry, GeometryError, Window
from convjit.kernel import Extra, Kernel
from convjit.schedule import Schedule
from convjit.schedule.metal import candidates
from convjit.schedule.metal.chip import CHIPS

MAX_MULTIPLICATIONS = 1_500_000
MAX_ELEMENTS = 40_000


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    """1D to 3D; strides, dilations, padding or cropping on either side, groups, transposed, flipped, odd channels."""
    rank = draw(st.sampled_from((1, 2, 2, 3)))

    def each(numbers: st.SearchStrategy[int]) -> tuple[int, ...]:
        return tuple(draw(numbers) for _ in range(rank))

    one = (1,) * rank
    kind = draw(st.sampled_from(("dense", "dense", "small", "grouped", "depthwise", "pointwise", "patches")))
    transposed = kind != "patches" and draw(st.sampled_from((False, False, True)))
    groups = {"grouped": draw(st.integers(2, 5)), "depthwise": draw(st.integers(1, 40))}.get(kind, 1)
    group_channels = {"depthwise": 1, "small": draw(st.integers(1, 7))}.get(kind) or draw(st.integers(1, 70))
    filters = draw(st.integers(1, 3)) if kind == "depthwise" else draw(st.integers(1, 70))
    kernel = one if kind == "pointwise" else each(st.integers(1, {1: 12, 2: 5, 3: 3}[rank]))
    extents = each(st.integers(1, {1: 70, 2: 18, 3: 8}[rank]))
    strides = one if transposed else kernel if kind == "patches" else each(st.integers(1, 3))
    if kind == "patches":
        extents = tuple(k * min(n, 6) for k, n in zip(kernel, extents, strict=True))
    window = Window(
        strides=strides,
        pad_lo=(0,) * rank if kind == "patches" else each(st.integers(-1, 4)),
        pad_hi=(0,) * rank if kind == "patches" else each(st.integers(-1, 4)),
        kernel_dilation=one if kind == "patches" else each(st.sampled_from((1, 1, 2, 3))),
        input_dilation=each(st.integers(1, 4)) if transposed else one,
        groups=groups,
        flip=transposed or draw(st.sampled_from((False, False, False, True))),
    )
    x = (draw(st.integers(1, 3)), *extents, groups * group_channels)
    try:
        return Geometry.of_shapes(x, (groups * filters, *kernel, group_channels), window)
    except GeometryError:
        return reject()


def fits(geometry: Geometry) -> bool:
    """Small enough for a checked run of about a second."""
    multiplications = prod(geometry.out_shape) * prod(geometry.weight_shape[1:])
    elements = max(map(prod, (geometry.in_shape, geometry.out_shape, geometry.weight_shape)))
    return multiplications <= MAX_MULTIPLICATIONS and elements <= MAX_ELEMENTS


Step = Callable[[Writer, int, int], int]
"""What to do with value y and extra e."""


def _constant(write: Writer, value: float) -> int:
    return write("arith.constant", attribute=value)


def _gelu(write: Writer, y: int, _: int) -> int:
    half = write("arith.mulf", y, _constant(write, 0.5))
    error = write("math.erf", write("arith.mulf", y, _constant(write, 0.70710678)))
    return write("arith.mulf", half, write("arith.addf", error, _constant(write, 1.0)))


def _leaky_where(write: Writer, y: int, e: int) -> int:
    positive = write("arith.cmpf", e, _constant(write, 0.1), type="i1", attribute="ogt")
    return write("arith.select", positive, y, write("arith.mulf", y, _constant(write, 0.1)))


STEPS: dict[str, Step] = {
    "add": lambda write, y, e: write("arith.addf", y, e),
    "subtract from": lambda write, y, e: write("arith.subf", e, y),
    "scale": lambda write, y, e: write("arith.mulf", y, write("math.tanh", e)),
    "divide": lambda write, y, e: write(
        "arith.divf", y, write("arith.addf", write("math.absf", e), _constant(write, 0.5))
    ),
    "maximum": maximum,
    "where": _leaky_where,
    "silu": lambda write, y, _: silu(write, y),
    "gelu": _gelu,
    "tanh": lambda write, y, _: write("math.tanh", y),
    "log1p": lambda write, y, _: write("math.log1p", write("math.absf", y)),
    "sqrt": lambda write, y, _: write("math.sqrt", write("arith.addf", write("math.absf", y), _constant(write, 1.0))),
}
"""None of them makes errors of the sum much larger."""


@st.composite
def kernels(draw: st.DrawFn) -> Kernel:
    """Of any geometry: up to four steps behind the sum, each with an extra of its own, one or two results."""
    geometry = draw(geometries().filter(fits))
    dtype = draw(st.sampled_from(("f32", "f16", "bf16")))
    steps = draw(st.lists(st.sampled_from(sorted(STEPS)), max_size=4))
    extras = tuple(
        Extra(tuple(n if draw(st.booleans()) else 1 for n in geometry.out_shape), draw(st.sampled_from((dtype, "f32"))))
        for _ in steps
    )
    write = Writer("f32", *(extra.dtype for extra in extras))
    values = [0]
    for number, step in enumerate(steps, 1):
        values.append(STEPS[step](write, values[-1], loaded(write, number)))
    kept = [*draw(st.lists(st.sampled_from(sorted(set(values))), max_size=1)), values[-1]]
    epilogue = write.epilogue(*(stored(write, value, dtype) for value in kept))
    accuracy = draw(st.sampled_from(("fast", "fastest")))
    return Kernel(geometry, dtype, extras, epilogue, (dtype,) * len(kept), accuracy)


@st.composite
def weight_gradients(draw: st.DrawFn) -> Kernel:
    """Of the weight of any convolution that is neither transposed nor flipped."""
    geometry = draw(geometries().filter(lambda g: fits(g) and not g.window.transposed and not g.window.flip))
    dtype = draw(st.sampled_from(("f32", "f16", "bf16")))
    return kernel_of(geometry, dtype)


@st.composite
def scheduled(draw: st.DrawFn) -> tuple[Kernel, Schedule]:
    """A kernel, and one of the schedules that some chip would try."""
    kernel = draw(weight_gradients() if draw(st.sampled_from((False, False, False, True))) else kernels())
    chip = draw(st.sampled_from(sorted(CHIPS)))
    return kernel, draw(st.sampled_from(candidates(kernel, CHIPS[chip])))
