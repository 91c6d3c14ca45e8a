"""Programs in other layouts than MLX's, and grouped convolutions written out: what the passes make of them."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from graphs import traced
from test_networks import check_every_pass, fused
from test_semantics import assert_close, parsed
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp

import convjit
from convjit import passes
from convjit.ir import reference
from convjit.ir.conv import FusedOp
from convjit.ir.mlx import is_primitive
from convjit.tracing.trace import Argument

TO_NHWC, TO_NCHW = (0, 2, 3, 1), (0, 3, 1, 2)


class PortedConv2d(nn.Module):
    """A convolution as it comes from PyTorch: activations NCHW, weight OIHW."""

    def __init__(self, inputs: int, outputs: int, kernel: int, **window: object):
        super().__init__()
        self.weight = mx.random.normal((outputs, inputs, kernel, kernel)) * 0.3
        self.window = window

    def __call__(self, x: mx.array) -> mx.array:
        y = mx.conv2d(x.transpose(TO_NHWC), self.weight.transpose(TO_NHWC), **self.window)
        return y.transpose(TO_NCHW)


class PortedBatchNorm(nn.Module):
    """BatchNorm of axis 1, by its running statistics."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight, self.bias = mx.random.uniform(0.5, 1.5, (channels,)), mx.random.normal((channels,))
        self.running_mean, self.running_var = mx.random.normal((channels,)), mx.random.uniform(0.5, 1.5, (channels,))

    def __call__(self, x: mx.array) -> mx.array:
        scale = self.weight * mx.rsqrt(self.running_var + 1e-5)
        return (x - self.running_mean[None, :, None, None]) * scale[:, None, None] + self.bias.reshape(1, -1, 1, 1)


class PortedBlock(nn.Module):
    """A residual block with a squeeze-and-excite gate, all NCHW."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1, self.norm1 = PortedConv2d(inputs, outputs, 3, stride=stride, padding=1), PortedBatchNorm(outputs)
        self.conv2, self.norm2 = PortedConv2d(outputs, outputs, 3, padding=1), PortedBatchNorm(outputs)
        self.gate = nn.Linear(outputs, outputs)
        self.down = PortedConv2d(inputs, outputs, 1, stride=stride) if inputs != outputs else None

    def __call__(self, x: mx.array) -> mx.array:
        y = self.norm2(self.conv2(nn.relu(self.norm1(self.conv1(x)))))
        y = y * mx.sigmoid(self.gate(y.mean((2, 3))))[:, :, None, None]
        return nn.relu(y + (x if self.down is None else self.down(x)))


class PortedNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = PortedConv2d(3, 6, 3, padding=1)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.blocks = [PortedBlock(6, 6, 1), PortedBlock(6, 5, 2)]
        self.head = nn.Linear(5, 4)

    def __call__(self, x: mx.array) -> mx.array:
        x = nn.relu(self.stem(x))
        x = self.pool(x.transpose(TO_NHWC)).transpose(TO_NCHW)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))


def transposes(module: ModuleOp, function: str = "forward") -> int:
    (func,) = (o for o in module.body.block.ops if isinstance(o, FuncOp) and o.sym_name.data == function)
    return sum(is_primitive(op, "Transpose") for op in func.walk())


def test_a_ported_network_is_transposed_where_it_begins_and_nowhere_else():
    mx.random.seed(3)
    module = check_every_pass(PortedNet().eval(), mx.random.normal((2, 3, 9, 8)), 1e-4)
    assert transposes(module) == 1
    assert transposes(module, "prepare") == 6 + 3  # the convolutions' weights, and the matrices of Linear
    assert fused(module) == {
        "stem": "Maximum",
        "blocks.0.conv1": "Add Maximum",
        "blocks.0.conv2": "Add",
        "blocks.1.conv1": "Add Maximum",
        "blocks.1.conv2": "Add",
        "blocks.1.down": "Add Maximum",
    }


def test_a_ported_network_compiled():
    mx.random.seed(4)
    net, x = PortedNet().eval(), mx.random.normal((2, 3, 9, 8))
    fast = convjit.compile(net, fallback="error")
    np.testing.assert_allclose(fast(x), net(x), rtol=1e-4, atol=1e-4)


class _Random:
    """A random program: a convolution, its result in any order of axes, and what may happen to that."""

    def __init__(self, seed: int):
        rng = np.random.default_rng(seed)
        self.rng = rng
        rank = int(rng.integers(1, 4))
        size = tuple(map(int, rng.integers(3, 5, rank)))
        channels = int(rng.integers(1, 5))
        self.x = self.numbers((int(rng.integers(1, 3)), *size, channels))
        self.w = self.numbers((int(rng.integers(2, 5)), *rng.integers(1, 3, rank), channels))
        self.v = self.numbers(self.w.shape)
        self.seed = seed

    def numbers(self, shape: tuple[int, ...]) -> mx.array:
        return mx.array(self.rng.integers(-4, 5, tuple(map(int, shape))) / 4, mx.float32)

    def __call__(self, x: mx.array, w: mx.array, v: mx.array) -> list[mx.array]:
        self.rng = rng = np.random.default_rng(self.seed)
        order = self.permutation(x.ndim)
        y, other = (mx.conv_general(x, weight).transpose(order) for weight in (w, v))
        kept: list[mx.array] = []
        for _ in range(int(rng.integers(2, 9))):
            if rng.random() < 0.2:
                kept.append(y)
            y = self.step(y, other)
            if y.ndim > 1 and rng.random() < 0.3:
                y = y.transpose(self.permutation(y.ndim))
        return [*kept, y]

    def permutation(self, ndim: int) -> list[int]:
        return list(map(int, self.rng.permutation(ndim)))

    def step(self, y: mx.array, other: mx.array) -> mx.array:
        rng, axis = self.rng, int(self.rng.integers(max(y.ndim, 1)))
        if y.ndim == 0:
            return mx.tanh(y)
        match int(rng.integers(14)):
            case 0:
                return mx.maximum(0.0, y) + 0.5
            case 1:
                return mx.where(y > 0.25, y, mx.exp(-mx.abs(y)))
            case 2 | 3:
                return mx.minimum(y, other) if y.shape == other.shape else mx.abs(y)
            case 4:
                return mx.concatenate([y, other * 2], axis) if y.shape == other.shape else mx.concatenate([y, y], axis)
            case 5:
                return mx.pad(y, [tuple(map(int, rng.integers(0, 2, 2))) for _ in y.shape], constant_values=0.5)
            case 6:
                return y[tuple(slice(None, None, int(rng.choice([-1, 1, 2]))) for _ in y.shape)]
            case 7:
                return mx.softmax(y, axis)
            case 8:
                return y.max(sorted({axis, y.ndim - 1}), keepdims=bool(rng.integers(2)))
            case 9:
                return mx.flatten(y, axis, int(rng.integers(axis, y.ndim)))
            case 10:
                return mx.concatenate(mx.split(y, [1], axis)[::-1], axis) if y.shape[axis] > 1 else y
            case 11:
                return y.reshape(self.factors(y.size))
            case 12:
                return mx.repeat(y[None], 2, 1 + axis)[0] if y.size < 500 else y
            case _:
                return y * self.broadcast(y)

    def factors(self, size: int) -> list[int]:
        """A shape of so many elements."""
        shape: list[int] = []
        while size > 1:
            shape.append(int(self.rng.choice([n for n in range(2, size + 1) if size % n == 0][:5])))
            size //= shape[-1]
            shape += [1] * int(self.rng.random() < 0.2)
        return shape or [1]

    def broadcast(self, y: mx.array) -> mx.array:
        """Numbers of a shape that broadcasts to y's: axes of extent 1, and some missing in front."""
        shape = [n if self.rng.random() < 0.5 else 1 for n in y.shape][int(self.rng.integers(y.ndim)) :]
        return mx.sin(mx.arange(float(np.prod(shape)))).reshape(shape)


@pytest.mark.parametrize("seed", range(30))
def test_every_order_of_axes_keeps_the_meaning(seed):
    program = _Random(seed)
    arrays = [program.x, program.w, program.v]
    module = traced(program, arrays, [Argument("x", "input"), Argument("w", "parameter"), Argument("v", "parameter")])
    want = program(*arrays)

    def check(pass_, module: ModuleOp) -> None:
        module.verify()
        assert str(parsed(str(module))) == str(module)
        for n, (got, expected) in enumerate(zip(reference.run(module, arrays), want, strict=True)):
            assert_close(got, expected, 1e-5, f"output {n} behind {pass_.name}")

    passes.run(module, passes.OPTIMIZE, check)


def split_and_joined(x: mx.array, w: mx.array, groups: int, **window: object) -> mx.array:
    parts = zip(mx.split(x, groups, -1), mx.split(w, groups, 0), strict=True)
    return mx.concatenate([mx.conv_general(a, b, **window) for a, b in parts], -1)


@pytest.mark.parametrize("groups", [2, 3, 6])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_groups_written_out_are_one_convolution(rank, groups):
    mx.random.seed(rank)
    x, w = mx.random.normal((2, *(4, 5, 3)[:rank], 6)), mx.random.normal((12, *(2, 3, 2)[:rank], 6 // groups))
    window = {"stride": 2, "padding": 1}

    def function(x: mx.array, w: mx.array) -> mx.array:
        return nn.relu(split_and_joined(x, w, groups, **window) + 1.0)

    module = traced(function, [x, w], [Argument("x", "input"), Argument("w", "parameter")])
    passes.run(module, passes.OPTIMIZE)
    assert_close(reference.run(module, [x, w])[0], function(x, w), 1e-5, "merged")
    (op,) = (o for o in module.walk() if isinstance(o, FusedOp))
    assert op.window.data.groups == groups and fused(module) == {"w": "Add Maximum"}
    fast = convjit.compile(function, fallback="error")
    np.testing.assert_allclose(fast(x, w), function(x, w), rtol=1e-5, atol=1e-5)


def test_groups_of_a_ported_network():
    """Channels are axis 1, and the pass sees them as the last ones of the convolution in front."""
    mx.random.seed(5)
    first, second = PortedConv2d(3, 4, 1), [PortedConv2d(2, 3, 3) for _ in range(2)]
    x = mx.random.normal((1, 3, 5, 5))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = first, second

        def __call__(self, x: mx.array) -> mx.array:
            halves = mx.split(nn.relu(self.first(x)), 2, 1)
            return mx.concatenate([conv(half) for conv, half in zip(self.second, halves, strict=True)], 1)

    module = check_every_pass(Net(), x, 1e-4)
    assert [op.window.data.groups for op in module.walk() if isinstance(op, FusedOp)] == [1, 2]
    assert transposes(module) == 2
