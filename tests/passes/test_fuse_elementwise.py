"""`fuse-elementwise` against the reference: random DAGs around convolutions, and the gradients of networks."""

from __future__ import annotations

from collections import Counter

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from graphs import traced
from xdsl.dialects import arith
from xdsl.dialects.builtin import StringAttr, i1
from xdsl.ir import BlockArgument

from convjit import passes
from convjit.ir import reference
from convjit.ir.conv import StretchOp
from convjit.ir.elementwise import ElementwiseOp
from convjit.ir.mlx import PrimitiveOp
from convjit.ir.types import element_type
from convjit.tracing.trace import Argument

UNARY = (mx.tanh, mx.square, mx.negative, mx.sigmoid, lambda v: mx.maximum(v, 0.0), lambda v: v * 0.5)
BINARY = (mx.add, mx.subtract, mx.multiply, mx.maximum, lambda a, b: mx.where(a > b, a, b))


def random_function(seed: int):
    """Elementwise ops, sums of several kinds, broadcasts and convolutions, in any order."""
    rng = np.random.default_rng(seed)
    channels = int(rng.choice([1, 3, 4]))
    steps = [(float(rng.random()), int(rng.integers(0, 1000)), int(rng.integers(0, 1000))) for _ in range(24)]
    outputs = rng.integers(0, 1000, 3)

    def function(x: mx.array, w: mx.array, scale: mx.array) -> list[mx.array]:
        values = [x, mx.conv2d(x, w, padding=1), scale]
        for kind, first, second in steps:
            a, b = values[first % len(values)], values[second % len(values)]
            if kind < 0.15:
                values.append(mx.sum(a, axis=tuple(range(a.ndim - 1)), keepdims=first % 2 == 0) * 0.01)
            elif kind < 0.2:
                values.append(mx.mean(a, axis=-1, keepdims=True))
            elif kind < 0.3 and a.shape == x.shape:
                values.append(mx.tanh(mx.conv2d(a, w, padding=1)))
            elif kind < 0.5:
                values.append(UNARY[second % len(UNARY)](a))
            else:
                values.append(mx.tanh(BINARY[(first + second) % len(BINARY)](a, b)))
        return [values[-1], *(values[o % len(values)] for o in outputs)]

    numbers = [rng.standard_normal(s) for s in ((2, 3, 5, channels), (channels, 3, 3, channels), (channels,))]
    return function, [mx.array(n.astype(np.float32)) for n in numbers]


def check(
    function, arrays: list[mx.array], dtype: mx.Dtype = mx.float32, tolerance: float = 2e-5
) -> list[ElementwiseOp]:
    """Compares the meaning of the module behind the pass, and behind those that follow, with the function's."""
    arrays = [a.astype(dtype) for a in arrays]
    module = traced(function, arrays, [Argument(f"x{n}", "input") for n in range(len(arrays))])
    want = function(*arrays)

    def compare(pass_, module) -> None:
        if pass_.name not in ("fuse-elementwise", "form-stretches"):
            return
        module.verify()
        for got, expected in zip(reference.run(module, arrays), want, strict=True):
            got, expected = (np.array(v.astype(mx.float32)) for v in (got, expected))
            assert got.shape == expected.shape
            np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * (1 + np.abs(expected).max()))

    passes.run(module, f"{passes.OPTIMIZE},form-stretches", compare)
    return [op for op in module.walk() if isinstance(op, ElementwiseOp)]


@pytest.mark.parametrize("seed", range(40))
def test_random_dags_keep_their_meaning(seed: int):
    check(*random_function(seed))


def test_random_dags_are_fused():
    assert sum(len(check(*random_function(seed))) for seed in range(10)) > 10


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_half_precision(dtype: mx.Dtype):
    for seed in range(3):
        check(*random_function(seed), dtype, 0.03 if dtype == mx.float16 else 0.25)


def batch_norm_block(x: mx.array, w: mx.array, gamma: mx.array, beta: mx.array) -> mx.array:
    y = mx.conv2d(x, w, padding=1)
    mean, variance = mx.mean(y, axis=(0, 1, 2)), mx.var(y, axis=(0, 1, 2))
    return nn.relu((y - mean) * mx.rsqrt(variance + 1e-5) * gamma + beta) + x


def arrays_of_block() -> list[mx.array]:
    keys = mx.random.split(mx.random.key(4), 4)
    shapes = ((2, 6, 5, 4), (4, 3, 3, 4), (4,), (4,))
    return [mx.random.normal(s, key=k) for s, k in zip(shapes, keys, strict=True)]


def gradients(x: mx.array, w: mx.array, gamma: mx.array, beta: mx.array) -> list[mx.array]:
    def loss(w: mx.array, gamma: mx.array, beta: mx.array) -> mx.array:
        inner = batch_norm_block(x, w, gamma, beta)
        return mx.sum(mx.square(batch_norm_block(inner, w, gamma, beta)))

    return list(mx.grad(loss, argnums=[0, 1, 2])(w, gamma, beta))


def test_batch_normalisation_and_its_gradient():
    kernels = check(gradients, arrays_of_block(), tolerance=1e-4)
    assert any(len(op.summed) > 1 for op in kernels), "sums that read the same values share a kernel"


def test_a_train_step_is_two_stretches():
    """Only the loss is MLX's own; before it and behind it is a stretch."""
    module = traced(gradients, arrays_of_block(), [Argument(n, "input") for n in ("x", "w", "gamma", "beta")])
    passes.run(module, f"{passes.OPTIMIZE},form-stretches")
    assert sum(isinstance(op, StretchOp) for op in module.walk()) <= 2
    plain = {op.primitive.data for op in module.walk() if isinstance(op, PrimitiveOp)}
    assert plain <= {"Broadcast", "Transpose", "Squeeze", "ExpandDims", "Multiply", "Reduce"}, plain


def test_more_ops_than_a_kernel_takes():
    def function(x: mx.array, w: mx.array) -> list[mx.array]:
        y = mx.conv2d(x, w, padding=1)
        total = mx.sum(y, axis=(0, 1, 2))
        for n in range(200):
            y = mx.tanh(y + total * (n / 100))
        return [y]

    assert len(check(function, arrays_of_block()[:2])) > 3


@pytest.mark.parametrize("others", range(1, 5))
def test_a_predicate_is_with_what_reads_it_wherever_a_kernel_ends(others: int):
    def function(x: mx.array, w: mx.array) -> list[mx.array]:
        y = mx.conv2d(x, w, padding=1)
        z = mx.cumsum(y, axis=0)
        for n in range(30):
            z = mx.where(z > n / 50, z * 0.5, mx.tanh(z + y))
            for _ in range(others):
                z = mx.sin(z)
        return [z]

    kernels = check(function, arrays_of_block()[:2])
    assert len(kernels) > 1 and all(element_type(v) != i1 for op in kernels for v in (*op.inputs, *op.outputs))


def ops_behind(function, arrays: list[mx.array]) -> Counter[str]:
    """How many of which primitives are left for MLX."""
    module = traced(function, arrays, [Argument(f"x{n}", "input") for n in range(len(arrays))])
    passes.run(module, passes.OPTIMIZE)
    return Counter(op.primitive.data for op in module.walk() if isinstance(op, PrimitiveOp))


def test_predicates_that_no_kernel_makes_stay_one():
    """Each is rearranged and read again; a copy for every reader would be two to the power of 16 of them."""

    def function(x: mx.array, w: mx.array) -> list[mx.array]:
        mask = x > 0.5
        for _ in range(16):
            mask = mx.logical_or(mask, mx.roll(mask, 1, axis=1))
        return [mx.where(mask, mx.conv2d(x, w, padding=1), 0.0)]

    assert ops_behind(function, arrays_of_block()[:2])["LogicalOr"] == 16
    check(function, arrays_of_block()[:2])


def test_a_reduction_of_a_predicate_stays_one_for_all_that_read_it():
    def function(x: mx.array, w: mx.array) -> list[mx.array]:
        y, found = mx.conv2d(x, w, padding=1), mx.any(x > 1.5, axis=-1, keepdims=True)
        return [mx.sum(mx.where(found, y * n, y + n)) for n in range(8)]

    counted = ops_behind(function, arrays_of_block()[:2])
    assert counted["Greater"] == 1 and counted["Reduce"] == 9
    check(function, arrays_of_block()[:2])


def test_predicates_made_from_each_other_are_with_each_of_their_readers():
    """As many copies of all as there are readers: not one for each way between two of them."""

    def function(x: mx.array, w: mx.array) -> list[mx.array]:
        y, mask = mx.conv2d(x, w, padding=1), x > 0
        for n in range(16):
            mask = mx.logical_or(mx.logical_and(mask, x > n / 8), mx.logical_and(mask, x < n / 4))
        return [mx.where(mask, y, 1.0), mx.cumsum(mx.where(mask, x, y), axis=1)]

    kernels = check(function, arrays_of_block()[:2])
    written = [op for kernel in kernels for op in kernel.body.block.ops if isinstance(op, arith.AndIOp)]
    assert 32 <= len(written) <= 2 * 32 and not ops_behind(function, arrays_of_block()[:2])["LogicalAnd"]


def test_infinities_and_nan_pass_through_masks_and_sums():
    x, w, *_ = arrays_of_block()
    x[0, 0, 0, 1], x[1, 2, 3, 2] = float("nan"), float("inf")

    def function(x: mx.array, w: mx.array) -> list[mx.array]:
        y = mx.conv2d(x, w, padding=1)
        z = nn.relu(x * 2.0) * mx.sum(x, axis=(0, 1, 2))
        return [nn.relu(y + z), mx.sum(nn.relu(x), axis=(0, 1, 2))]

    module = traced(function, [x, w], [Argument("x", "input"), Argument("w", "input")])
    passes.run(module, passes.OPTIMIZE)
    for got, want in zip(reference.run(module, [x, w]), function(x, w), strict=True):
        np.testing.assert_allclose(np.array(got), np.array(want), rtol=1e-4)


def large_gradients(x: mx.array, w: mx.array, gamma: mx.array, beta: mx.array) -> list[mx.array]:
    return gradients(mx.tile(x, (8, 3, 3, 1)), w, gamma, beta)


def test_what_a_backward_pass_reads_is_computed_again():
    """Of all that normalisation makes, only what a convolution or the next block reads is stored."""
    kernels = check(large_gradients, arrays_of_block(), tolerance=1e-4)
    stored = [len(op.outputs) - len(op.summed) for op in kernels if len(op.extents) == 4]
    assert max(stored) <= 2 and sum(n > 1 for n in stored) <= 1, stored


def test_what_a_kernel_reads_repeated_is_computed_by_one_too():
    """The mean is near no kernel but through a broadcast."""

    def function(x: mx.array, w: mx.array, total: mx.array) -> list[mx.array]:
        return [mx.conv2d(mx.tanh(x - total * 0.125), w)]

    rng = np.random.default_rng(5)
    arrays = [mx.array(rng.standard_normal(s).astype(np.float32)) for s in ((2, 2, 2, 3), (3, 1, 1, 3), (1, 1, 1, 3))]
    kernels = check(function, arrays)
    assert [op.extents for op in kernels] == [(3,), (2, 2, 2, 3)]


def test_kernels_are_the_same_in_every_run():
    """Equal programs have equal texts, which are compiled once."""
    texts: set[str] = set()
    for _ in range(3):
        module = traced(large_gradients, arrays_of_block(), [Argument(f"x{n}", "input") for n in range(4)])
        passes.run(module, passes.OPTIMIZE)
        texts.add(str(module))
    assert len(texts) == 1


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16])
def test_what_is_compared_with_its_maximum_is_read(dtype: mx.Dtype):
    """Two kernels may round one number differently."""

    def function(x: mx.array, w: mx.array, gamma: mx.array, beta: mx.array) -> list[mx.array]:
        y = mx.conv2d(x, w, padding=1)
        scaled = (y - mx.mean(y, axis=(0, 1, 2))) * gamma
        shifted = scaled + beta
        largest = mx.max(shifted, axis=(1, 2), keepdims=True)
        return [mx.where(shifted == largest, scaled * scaled, 0.0)]

    x, *others = arrays_of_block()
    arrays = [a.astype(dtype) for a in (mx.tile(x, (8, 3, 3, 1)), *others)]
    module = traced(function, arrays, [Argument(f"x{n}", "input") for n in range(4)])
    passes.run(module, passes.OPTIMIZE)
    (compared,) = (op for op in module.walk() if isinstance(op, arith.CmpfOp))
    behind = [v.owner.operands[0] if isinstance(v.owner, arith.ExtFOp) else v for v in compared.operands]
    kernel = compared.parent_op()
    assert isinstance(kernel, ElementwiseOp) and all(isinstance(v, BlockArgument) for v in behind)
    assert kernel.attributes["fused"] == StringAttr("Subtract Multiply Equal Multiply Select"), "the rest is made again"


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_numbers_of_half_types_are_compared_as_arrays_hold_them(dtype: mx.Dtype):
    """An epilogue rounds what it compares, be it with a constant."""

    def function(x: mx.array, w: mx.array, before: mx.array) -> list[mx.array]:
        y = mx.conv2d(x, w, padding=1) * 0.25
        return [mx.where(y == before, 1.0, 0.0), mx.where(y > before, 1.0, 0.0), mx.where(y > 0, y, 0.1 * y)]

    x, w, *_ = (a.astype(dtype) for a in arrays_of_block())
    before = (mx.conv2d(x.astype(mx.float32), w.astype(mx.float32), padding=1) * 0.25).astype(dtype)
    module = traced(function, [x, w, before], [Argument(n, "input") for n in ("x", "w", "before")])
    passes.run(module, "raise-conv,fuse-epilogue")
    same, greater, _ = reference.run(module, [x, w, before])
    assert same.all() and not greater.any()
    rounded = [isinstance(op.lhs.owner, arith.ExtFOp) for op in module.walk() if isinstance(op, arith.CmpfOp)]
    assert rounded == [True, True, True]
