"""Which outputs a proof looks at: a fault in any one kind of them is found."""

from __future__ import annotations

import math
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest

from benchmarks.kernels import kernel_of, mlx_of
from convjit import proof
from convjit.geometry import Geometry, Window
from convjit.kernel import Epilogue, Instruction
from convjit.proof import check
from convjit.proof.samples import RANDOM, samples
from convjit.schedule import Schedule

TILED = Schedule("metal/gemm.metal", (("columns", 7), ("images", 2), ("rows", 5), ("tiles_n", 3)))
PLAIN = Window((1, 1), (2, 2), (2, 2), (1, 1), (1, 1))
TRANSPOSED = Window((1, 1), (3, 3), (2, 2), (1, 1), (3, 2), flip=True)
WIDE = Geometry.of_shapes((5, 41, 53, 4), (29, 5, 5, 4), PLAIN)
SPREAD = Geometry.of_shapes((1, 20, 23, 4), (8, 4, 4, 4), TRANSPOSED)


def tile_end(y):
    """The last, partial tile of rows and columns."""
    y[:, 40:, 49:] += 1


def phase(y):
    y[:, 1::3, 1::2] += 1


KINDS = {
    "corner": lambda y: y[-1, -1, 0].__iadd__(1),
    "partial tile": tile_end,
    "last column": lambda y: y[:, :, -1].__iadd__(1),
    "second column, whose first tap is padding": lambda y: y[:, :, 1].__iadd__(1),
    "first column behind the first tile": lambda y: y[:, :, 7].__iadd__(1),
    "last row of the first tile": lambda y: y[:, 4].__iadd__(1),
    "last image": lambda y: y[-1].__iadd__(1),
    "first image of the last tile": lambda y: y[4].__iadd__(1),
    "a channel": lambda y: y[..., 11].__iadd__(1),
    "channel tail": lambda y: y[..., 27:].__iadd__(1),
    "channels in the middle of the last column": lambda y: y[:, :, -1, 12:16].__iadd__(1),
    "one pixel of each tile": lambda y: y[:, 3::5, 2::7].__iadd__(1),
    "one in thirty": lambda y: y.reshape(-1)[7::30].__iadd__(1),
    "one output that no thread wrote": lambda y: y.__setitem__((3, 17, 18, 19), np.nan),
}


def damaged(kernel, damage):
    def run(arrays):
        y = np.array(mlx_of(kernel)(arrays)[0])
        damage(y)
        return [mx.array(y)]

    return run


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_of_one_kind(kind):
    kernel = kernel_of(WIDE, "f32", "bare")
    verdict = proof.prove(kernel, TILED, damaged(kernel, KINDS[kind]))
    assert verdict.wrong and not verdict.error


def test_a_fault_of_one_phase():
    kernel = kernel_of(SPREAD, "f32", "bare")
    assert proof.prove(kernel, TILED, damaged(kernel, phase)).wrong
    assert proof.prove(kernel, TILED, damaged(kernel, lambda y: None)).is_right


def test_what_must_not_be_finite_is_right():
    kernel = kernel_of(WIDE, "f32", "bare")
    overflow = Instruction("arith.constant", (), "f32", 3e38)
    steps = (overflow, Instruction("arith.mulf", (0, 1), "f32"), Instruction("arith.addf", (2, 2), "f32"))
    kernel = replace(kernel, epilogue=Epilogue(("f32",), steps, (3,)))
    bare = mlx_of(kernel)

    def run(arrays):
        y = bare(arrays)[0] * 3e38
        return [y + y]

    assert np.isinf(np.array(run(check.inputs(kernel, np.random.default_rng(0)))[0])).any()
    assert proof.prove(kernel, TILED, run).is_right


def test_results_of_another_shape():
    kernel = kernel_of(WIDE, "f32", "bare")
    verdict = proof.prove(kernel, TILED, lambda arrays: [mx.zeros((1, 2, 3, 4))])
    assert "have shapes [(1, 2, 3, 4)]" in str(verdict)


@pytest.mark.parametrize("geometry", [WIDE, SPREAD])
def test_corners_and_random_ones(geometry):
    found = samples(kernel_of(geometry, "f32", "bare"), TILED, np.random.default_rng(0))
    outputs = set(zip(*(axis.tolist() for axis in found), strict=True))
    assert {(0,) * 4, tuple(n - 1 for n in geometry.out_shape)} <= outputs
    assert len(outputs) > RANDOM
    assert all(axis.min() >= 0 and axis.max() < n for axis, n in zip(found, geometry.out_shape, strict=True))


def test_long_sums_get_fewer():
    geometry = Geometry.of_shapes((1, 300, 300, 64), (2, 256, 256, 64), PLAIN)
    found = samples(kernel_of(geometry, "f32", "bare"), TILED, np.random.default_rng(0))
    assert len(found[0]) == 32_000_000 // math.prod(geometry.weight_shape[1:])


@pytest.mark.parametrize(("batch", "tile", "images"), [(1, 1, 1), (2, 1, 2), (64, 1, 2), (64, 4, 5), (3, 4, 3)])
def test_few_images_are_enough(batch, tile, images):
    geometry = Geometry.of_shapes((batch, 41, 53, 4), (29, 5, 5, 4), PLAIN)
    small = proof.for_proof(kernel_of(geometry, "f16", "bias+SiLU+residual"), Schedule("t", (("images", tile),)))
    assert small.geometry.batch == images
    assert [e.shape[0] for e in small.extras] == [1, images]


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
def test_a_missing_part_of_a_long_sum(dtype):
    """The last of 16 parts, or the last tap of 25: far less than a sum of that many halves could be rounded off."""
    geometry = Geometry.of_shapes((1, 9, 9, 256), (8, 5, 5, 256), PLAIN)
    kernel = kernel_of(geometry, dtype, "bias+SiLU+residual")

    def run(arrays, kept):
        x, w, *extras = arrays
        return mlx_of(kernel)([x, w * kept, *extras])

    channels = mx.where(mx.arange(256) < 240, 1, 0).astype(mx.float32)
    taps = mx.where(mx.arange(25) < 24, 1, 0).reshape(5, 5, 1).astype(mx.float32)
    assert proof.prove(kernel, TILED, lambda arrays: run([a.astype(mx.float32) for a in arrays], channels)).wrong
    assert proof.prove(kernel, TILED, lambda arrays: run([a.astype(mx.float32) for a in arrays], taps)).wrong
    assert proof.prove(kernel, TILED, lambda arrays: run([a.astype(mx.float32) for a in arrays], 1)).is_right
