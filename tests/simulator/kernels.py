"""What the tests of Metal templates share: random kernels, and a template's text run on the host against float64."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import mlx.core as mx
import numpy as np
import numpy.typing as npt
import reference
from test_cpu_weight_gradient import ROUNDING, weight_gradient

from convjit.backends import MLX_DTYPES
from convjit.backends.simulator import SimulatorBackend
from convjit.geometry import Geometry, GeometryError, Window
from convjit.kernel import Epilogue, Extra, Instruction, Kernel, identity_epilogue
from convjit.schedule import Schedule
from convjit.schedule.metal.tile import Tiling, useful
from convjit.simulator import Counters

TOLERANCE = {"f32": 1e-5, "f16": 2e-3, "bf16": 1e-2}
BACKEND = SimulatorBackend()

Array = npt.NDArray[np.float64]


def efficiency(kernel: Kernel, schedule: Schedule) -> float:
    """Useful / issued multiply-adds of matrices."""
    return useful(kernel) / Tiling.of(kernel, schedule).issued


def simulate(kernel: Kernel, schedule: Schedule, x: mx.array, w: mx.array, extras: Sequence[mx.array]) -> list[Array]:
    """The results of `kernel` by `schedule`; linter, type check and checker must find nothing."""
    packed = BACKEND.pack(kernel.geometry.window, schedule, w)
    done = BACKEND.examine(BACKEND.dispatches(kernel, schedule), [x, packed, *extras])
    assert done.findings == ()
    for counters in done.counters:
        assert 64 <= counters.threads <= 256
        assert counters.buffers <= 31
        assert counters.threadgroup_memory <= 16 << 10
    return [to_numpy(r) for r in done.results]


def count(kernel: Kernel, schedule: Schedule) -> tuple[Counters, ...]:
    """What each dispatch of a kernel without extras does."""
    x, w = (random_array(n, shape, kernel.dtype) for n, shape in enumerate(kernel.operand_shapes))
    packed = BACKEND.pack(kernel.geometry.window, schedule, w)
    return BACKEND.examine(BACKEND.dispatches(kernel, schedule), [x, packed]).counters


def to_numpy(array: mx.array) -> Array:
    return np.array(array.astype(mx.float32)).astype(np.float64)


def random_array(seed: int, shape: tuple[int, ...], dtype: str, scale: float = 1.0) -> mx.array:
    return mx.random.normal(shape, scale=scale, key=mx.random.key(seed)).astype(MLX_DTYPES[dtype])


def check(kernel: Kernel, schedule: Schedule, seed: int = 0) -> None:
    """`kernel` by `schedule`, on random numbers, must give what its definition does."""
    if kernel.operation == "weight_gradient":
        check_weight_gradient(kernel, schedule, seed)
        return
    g = kernel.geometry
    x = random_array(seed, g.in_shape, kernel.dtype)
    # Sums of about 1, whatever their length: an epilogue may make large ones small, but not their errors.
    w = random_array(seed + 1, g.weight_shape, kernel.dtype, math.prod(g.weight_shape[1:]) ** -0.5)
    extras = [random_array(seed + 2 + i, e.shape, e.dtype) for i, e in enumerate(kernel.extras)]
    expected = reference.results(kernel, to_numpy(x), to_numpy(w), [to_numpy(e) for e in extras])
    for y, exact, dtype in zip(simulate(kernel, schedule, x, w, extras), expected, kernel.result_dtypes, strict=True):
        assert y.shape == g.out_shape
        assert np.abs(y - exact).max() <= TOLERANCE[dtype] * max(np.abs(exact).max(), 1e-3), g


def check_weight_gradient(kernel: Kernel, schedule: Schedule, seed: int) -> None:
    """Every element is as near as its rounding and chains of single precision allow."""
    x, dy = (random_array(seed + n, shape, kernel.dtype) for n, shape in enumerate(kernel.operand_shapes))
    (got,), numbers = simulate(kernel, schedule, x, dy, []), (to_numpy(x), to_numpy(dy))
    exact, magnitude = (weight_gradient(kernel.geometry, *n) for n in (numbers, map(np.abs, numbers)))
    assert got.shape == kernel.result_shape
    assert np.all(np.abs(got - exact) <= 3e-6 * magnitude + ROUNDING[kernel.dtype] * np.abs(exact) + 1e-7), kernel


class Writer:
    """Instructions of an epilogue, one after the other."""

    def __init__(self, *inputs: str):
        self.inputs = inputs
        self.instructions: list[Instruction] = []

    def __call__(self, op: str, *operands: int, type: str = "f32", attribute: str | float | None = None) -> int:
        self.instructions.append(Instruction(op, operands, type, attribute))
        return len(self.inputs) + len(self.instructions) - 1

    def epilogue(self, *results: int) -> Epilogue:
        return Epilogue(self.inputs, tuple(self.instructions), results)


def loaded(write: Writer, value: int) -> int:
    """An input as f32."""
    return value if write.inputs[value] == "f32" else write("arith.extf", value)


def stored(write: Writer, value: int, dtype: str) -> int:
    return value if dtype == "f32" else write("arith.truncf", value, type=dtype)


def silu(write: Writer, x: int) -> int:
    one = write("arith.constant", attribute=1.0)
    return write("arith.divf", x, write("arith.addf", one, write("math.exp", write("arith.negf", x))))


def maximum(write: Writer, x: int, y: int) -> int:
    """As MLX has it: NaN from either side; of two zeros the second."""
    greater = write("arith.cmpf", x, y, type="i1", attribute="ogt")
    unordered = write("arith.cmpf", x, x, type="i1", attribute="uno")
    return write("arith.select", write("arith.ori", greater, unordered, type="i1"), x, y)


def bias_silu(dtype: str) -> Epilogue:
    write = Writer("f32", dtype)
    return write.epilogue(stored(write, silu(write, write("arith.addf", 0, loaded(write, 1))), dtype))


def residual_gate(dtype: str) -> Epilogue:
    """Two results: the sum with its residual, and that times a gate, clipped at zero."""
    write = Writer("f32", dtype, "f32")
    total = write("arith.addf", 0, loaded(write, 1))
    product = write("arith.mulf", total, 2)
    clipped = maximum(write, product, write("arith.constant", attribute=0.0))
    return write.epilogue(stored(write, total, dtype), clipped)


def random_geometry(choose: random.Random) -> Geometry:
    while True:
        rank = choose.choice((1, 2, 2, 3))
        size = {1: 24, 2: 9, 3: 5}[rank]

        def each(low: int, high: int, n: int = rank) -> tuple[int, ...]:
            return tuple(choose.randint(low, high) for _ in range(n))

        groups = choose.choice((1, 1, 2, 5))
        transposed = choose.random() < 0.3
        window = Window(
            strides=(1,) * rank if transposed else each(1, 3),
            pad_lo=each(-1, 3),
            pad_hi=each(-1, 3),
            kernel_dilation=each(1, 2),
            input_dilation=each(1, 3) if transposed else (1,) * rank,
            groups=groups,
            flip=transposed or choose.random() < 0.1,
        )
        x = (choose.choice((1, 2, 3)), *each(1, size), groups * choose.randint(1, 5))
        w = (groups * choose.choice((1, 2, 3, 5, 8)), *each(1, 4), x[-1] // groups)
        try:
            return Geometry.of_shapes(x, w, window)
        except GeometryError:
            continue


def random_kernel(choose: random.Random, geometry: Geometry) -> Kernel:
    """A kernel of this geometry: any storage type, any extras, one result or two."""
    dtype = choose.choice(("f32", "f16", "bf16"))
    out = geometry.out_shape

    def broadcast() -> tuple[int, ...]:
        return tuple(n if choose.random() < 0.5 else 1 for n in out)

    match choose.randrange(3):
        case 0:
            return Kernel(geometry, dtype, (), identity_epilogue(dtype), (dtype,))
        case 1:
            bias = Extra((*(1,) * (len(out) - 1), out[-1]), dtype)
            return Kernel(geometry, dtype, (bias,), bias_silu(dtype), (dtype,))
        case _:
            extras = (Extra(choose.choice((out, broadcast())), dtype), Extra(broadcast(), "f32"))
            return Kernel(geometry, dtype, extras, residual_gate(dtype), (dtype, "f32"))
