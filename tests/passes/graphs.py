"""Random small networks of convolutions and elementwise ops, and how to trace them.

Every number of a network is a small multiple of a power of two and every scale is a power of two, so that sums are
exact in float32 whatever their order: what a pass changes then shows, and steps (floor, comparisons) do not flip.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import mlx.core as mx
import numpy as np
from xdsl.dialects.builtin import ModuleOp

from convjit.tracing.trace import Argument, record, to_module

UNARY: dict[str, Callable[[mx.array], mx.array]] = {
    "abs": mx.abs,
    "ceil": mx.ceil,
    "cos": mx.cos,
    "cube": lambda x: x**3,
    "erf": mx.erf,
    "exp": lambda x: mx.exp(-mx.abs(x)),
    "expm1": lambda x: mx.expm1(-mx.abs(x)),
    "floor": mx.floor,
    "inverse": lambda x: (mx.abs(x) + 1.0) ** -1.0,
    "log": lambda x: mx.log(x),
    "log10": lambda x: mx.log10(mx.abs(x) + 1.0),
    "log1p": lambda x: mx.log1p(mx.abs(x)),
    "log2": lambda x: mx.log2(mx.abs(x) + 2.0),
    "negative": mx.negative,
    "power": lambda x: mx.power(mx.abs(x) + 1.0, 0.75),
    "round": mx.round,
    "rsqrt": lambda x: mx.rsqrt(mx.abs(x) + 1.0),
    "sigmoid": mx.sigmoid,
    "sign": mx.sign,
    "sin": mx.sin,
    "sqrt": mx.sqrt,
    "square": mx.square,
    "tan": lambda x: mx.tan(mx.tanh(x)),
    "tanh": mx.tanh,
}
BINARY: dict[str, Callable[[mx.array, mx.array], mx.array]] = {
    "add": mx.add,
    "divide": lambda x, y: x / (mx.abs(y) + 1.0),
    "logaddexp": mx.logaddexp,
    "maximum": mx.maximum,
    "minimum": mx.minimum,
    "multiply": mx.multiply,
    "power": lambda x, y: mx.power(mx.abs(x) + 1.0, mx.tanh(y)),
    "subtract": mx.subtract,
}
PREDICATES: dict[str, Callable[[mx.array, mx.array], mx.array]] = {
    "equal": lambda x, y: x == y,
    "not_equal": lambda x, y: x != y,
    "greater": lambda x, y: x > y,
    "greater_equal": lambda x, y: x >= y,
    "less": lambda x, y: x < y,
    "less_equal": lambda x, y: x <= y,
    "and": lambda x, y: mx.logical_and(x > 0, y > 1),
    "or": lambda x, y: mx.logical_or(x > 0, y > 1),
    "not": lambda x, y: mx.logical_not(x > y),
}
STEPS = {"ceil", "floor", "round", "sign", "log", "sqrt"}
"""Unary ops that jump, or whose domain ends: left out where values are rounded to a half type."""

Step = tuple[Callable[..., mx.array], tuple[int, ...]]


@dataclass
class Graph:
    """A network: arrays by name and kind, the steps over numbered values (arrays first), and which are returned."""

    dtype: mx.Dtype
    arrays: list[tuple[str, str, mx.array]] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)

    def __call__(self, *arrays: mx.array) -> list[mx.array]:
        values = list(arrays)
        for function, operands in self.steps:
            values.append(function(*(values[o] for o in operands)))
        return [values[o] for o in self.outputs]

    @property
    def inputs(self) -> list[mx.array]:
        return [array for _, _, array in self.arrays]

    def expected(self) -> list[mx.array]:
        """The outputs in float32, whatever the network's dtype."""
        return self(*(a.astype(mx.float32) for a in self.inputs))

    def module(self) -> ModuleOp:
        arguments = [Argument(name, kind) for name, kind, _ in self.arrays]
        return traced(self, self.inputs, arguments)


def traced(function: Callable[..., object], arrays: Sequence[mx.array], arguments: Sequence[Argument]) -> ModuleOp:
    """The IR of `function`, none of whose captured arrays is larger than a scalar."""

    def as_list(*tracers: mx.array) -> list[mx.array]:
        result = function(*tracers)
        return list(result) if isinstance(result, (list, tuple)) else [result]

    module, constants = to_module(record(as_list, arrays), arguments)
    assert not constants
    return module


def random_graph(seed: int, dtype: mx.Dtype = mx.float32) -> Graph:
    """One to three convolutions, 1D to 3D, with what networks put before, behind and between them."""
    return _Builder(seed, dtype).build()


class _Builder:
    def __init__(self, seed: int, dtype: mx.Dtype):
        self.rng = np.random.default_rng(seed)
        self.graph = Graph(dtype)
        self.half = dtype != mx.float32
        self.rank = int(self.rng.choice([1, 2, 2, 2, 3]))
        self.pending: list[Step] = []
        self.values: list[mx.array] = []

    def build(self) -> Graph:
        """Values are numbered by arrays and steps apart while building: steps from 1000 up."""
        size = tuple(int(self.rng.integers(4, 8)) for _ in range(self.rank))
        x = self.array((int(self.rng.integers(1, 3)), *size, int(self.rng.choice([2, 4, 6]))), "input")
        outputs: list[int] = []
        for _ in range(int(self.rng.integers(1, 4))):
            value, inner = self.epilogue(self.normalised(self.convolution(x)))
            if self.rng.random() < 0.3:
                value = self.gated(value)
            if self.rng.random() < 0.3:
                outputs.append(inner)
            x = value
        outputs.append(x)
        if self.rng.random() < 0.5:
            outputs.append(self.step(lambda v: mx.mean(v, axis=tuple(range(1, self.rank + 1))), x))
        shift = 1000 - len(self.graph.arrays)

        def final(number: int) -> int:
            return number if number < 1000 else number - shift

        self.graph.steps = [(f, tuple(map(final, operands))) for f, operands in self.pending]
        self.graph.outputs = [final(o) for o in outputs]
        return self.graph

    def value(self, number: int) -> mx.array:
        return self.graph.arrays[number][2] if number < 1000 else self.values[number - 1000]

    def array(self, shape: tuple[int, ...], kind: str, power: bool = False, dense: bool = True) -> int:
        """A new array of multiples of 1/4 (or of powers of two, with either sign)."""
        if power:
            numbers = np.exp2(self.rng.integers(-1, 2, shape)) * self.rng.choice([-1.0, 1.0], shape)
        else:
            numbers = self.rng.integers(-4, 5, shape) / 4 * (1 if dense else self.rng.random(shape) < 0.3)
        number = len(self.graph.arrays)
        array = mx.array(numbers.astype(np.float32)).astype(self.graph.dtype)
        self.graph.arrays.append((f"{'x' if kind == 'input' else 'layer'}{number}.weight", kind, array))
        return number

    def step(self, function: Callable[..., mx.array], *operands: int) -> int:
        self.values.append(function(*(self.value(o) for o in operands)))
        self.pending.append((function, operands))
        return 1000 + len(self.values) - 1

    def convolution(self, x: int) -> int:
        rng, rank = self.rng, self.rank
        channels = self.value(x).shape[-1]
        groups = int(rng.choice([g for g in (1, 1, 1, 2, channels) if channels % g == 0]))
        transposed = rng.random() < 0.25 and (groups == 1 or rank < 3)
        if rank == 3:
            groups = 1  # MLX has no grouped 3D convolutions
        out = groups * int(rng.choice([1, 2, 4]))
        kernel = tuple(int(rng.integers(1, 4)) for _ in range(rank))
        stride = tuple(int(rng.integers(1, 3)) for _ in range(rank))
        dilation = tuple(int(rng.integers(1, 3)) for _ in range(rank))
        padding = tuple(int(rng.integers(0, 1 + d * (k - 1))) for k, d in zip(kernel, dilation, strict=True))
        reach = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        if transposed:
            padding = tuple(r - p for r, p in zip(reach, padding, strict=True))
        if any(n + 2 * p <= r for n, p, r in zip(self.value(x).shape[1:-1], padding, reach, strict=True)):
            kernel, padding, reach = (1,) * rank, (0,) * rank, [0] * rank
        if transposed:
            padding = tuple(r - p for r, p in zip(reach, padding, strict=True))
        w = self.array((out, *kernel, channels // groups), "parameter", dense=False)
        if rng.random() < 0.15:
            w = self.step(lambda a: mx.maximum(a, -0.5), w)
        if rng.random() < 0.4:
            widths = [(0, 0), *((int(rng.integers(0, 3)), int(rng.integers(0, 3))) for _ in range(rank)), (0, 0)]
            fill = float(rng.choice([0.0, 0.0, 0.0, 0.5]))
            x = self.step(lambda a: mx.pad(a, widths, constant_values=fill), x)
        if transposed:
            function = (mx.conv_transpose1d, mx.conv_transpose2d, mx.conv_transpose3d)[rank - 1]
            single = rank == 1
            y = self.step(
                lambda a, b: function(
                    a,
                    b,
                    stride=stride[0] if single else stride,
                    padding=padding[0] if single else padding,
                    dilation=dilation[0] if single else dilation,
                    groups=groups,
                ),
                x,
                w,
            )
        else:
            y = self.step(
                lambda a, b: mx.conv_general(
                    a, b, stride=stride, padding=padding, kernel_dilation=dilation, groups=groups
                ),
                x,
                w,
            )
        return y

    def normalised(self, y: int) -> int:
        """A bias, or what BatchNorm does in evaluation, perhaps both; its scale may be an input or a state."""
        rng = self.rng
        channels = self.value(y).shape[-1]
        if rng.random() < 0.5:
            y = self.step(mx.add, y, self.array((channels,), "parameter"))
        if rng.random() < 0.5:
            kind = str(rng.choice(["parameter", "parameter", "parameter", "input", "state"]))
            mean, beta = self.array((channels,), "parameter"), self.array((channels,), "parameter")
            y = self.step(mx.subtract, y, mean)
            y = self.step(
                mx.divide if rng.random() < 0.3 else mx.multiply, y, self.array((channels,), kind, power=True)
            )
            y = self.step(mx.add, y, beta)
        return y

    def extra(self, like: mx.array) -> int:
        """A scalar, a vector of channels, a plane of pixels, a column of the batch, or a whole array."""
        shapes = [(), (like.shape[-1],), (*like.shape[1:-1], 1), (like.shape[0], *(1,) * (like.ndim - 1)), like.shape]
        return self.array(
            shapes[int(self.rng.integers(len(shapes)))], str(self.rng.choice(["parameter", "input", "state"]))
        )

    def epilogue(self, y: int) -> tuple[int, int]:
        """A random elementwise DAG behind `y`; returns its end and some value inside it."""
        rng = self.rng
        pool = [y]
        for _ in range(int(rng.integers(0, 9))):
            a, b = (int(pool[int(rng.integers(len(pool)))]) for _ in range(2))
            if rng.random() < 0.3:
                b = self.extra(self.value(y))
            elif rng.random() < 0.2:
                b = self.step(lambda v: mx.max(v, axis=1, keepdims=True), b)
            if rng.random() < 0.3:
                a = pool[-1]
            value = self.elementwise(a, b)
            finite = np.array(self.value(value).astype(mx.float32))
            if np.nanmax(np.abs(finite), initial=0) <= (8 if self.half else 100) and np.isnan(finite).mean() < 0.2:
                pool.append(value)
        return pool[-1], int(rng.choice(pool))

    def elementwise(self, a: int, b: int) -> int:
        rng = self.rng
        kind = rng.random()
        if kind < 0.45:
            names = [n for n in UNARY if not (self.half and n in STEPS)]
            return self.step(UNARY[str(rng.choice(names))], a)
        if kind < 0.75 or self.half:
            return self.step(BINARY[str(rng.choice(list(BINARY)))], a, b)
        if kind < 0.8:
            return self.step(lambda v: v.astype(mx.float16).astype(mx.float32), a)
        if kind < 0.85:
            return self.step(lambda v, w: (v > w).astype(mx.float32), a, b)
        predicate = PREDICATES[str(rng.choice(list(PREDICATES)))]
        return self.step(lambda v, w: mx.where(predicate(v, w), v, w), a, b)

    def gated(self, y: int) -> int:
        """Squeeze and excite."""
        axes = tuple(range(1, self.rank + 1))
        gate = self.array((self.value(y).shape[-1],) * 2, "parameter")
        return self.step(lambda v, g: v * mx.sigmoid(mx.mean(v, axis=axes, keepdims=True) @ g), y, gate)
