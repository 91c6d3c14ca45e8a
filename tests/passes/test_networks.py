"""Real layers through every pass, and what becomes of them."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from graphs import traced
from mlx.utils import tree_flatten, tree_unflatten
from test_semantics import assert_close, parsed
from xdsl.dialects.builtin import ModuleOp

from convjit import passes
from convjit.ir import reference
from convjit.ir.conv import FusedOp, StretchOp
from convjit.tracing.trace import Argument
from examples.models import SMALL, ready


def check_every_pass(model: nn.Module, x: mx.array, tolerance: float = 2e-5) -> ModuleOp:
    """The module behind the pipeline, whose meaning was compared with the model's behind every pass."""
    names, parameters = zip(*tree_flatten(model.parameters()), strict=True)
    want = model(x)

    def call(x: mx.array, *tracers: mx.array) -> mx.array:
        model.update(tree_unflatten(list(zip(names, tracers, strict=True))))
        try:
            return model(x)
        finally:
            model.update(tree_unflatten(list(zip(names, parameters, strict=True))))

    arrays = [x, *parameters]
    module = traced(call, arrays, [Argument("x", "input"), *(Argument(name, "parameter") for name in names)])

    def check(pass_, module: ModuleOp) -> None:
        module.verify()
        assert str(parsed(str(module))) == str(module)
        (got,) = reference.run(module, arrays)
        assert_close(got, want, tolerance, f"behind {pass_.name}")

    passes.run(module, passes.pipeline_for("simulator"), check)
    return module


def fused(module: ModuleOp) -> dict[str, str]:
    """What each layer's kernel does besides the convolution."""
    return {
        op.layer.data: op.attributes["fused"].data if "fused" in op.attributes else ""
        for op in module.walk()
        if isinstance(op, FusedOp)
    }


def stretches(module: ModuleOp) -> Sequence[int]:
    """How many kernels each stretch has."""
    return [sum(isinstance(o, FusedOp) for o in op.body.block.ops) for op in module.walk() if isinstance(op, StretchOp)]


@pytest.mark.parametrize("name", SMALL)
def test_small_networks_keep_their_meaning(name):
    make, shape = SMALL[name]
    check_every_pass(ready(make()), mx.random.normal(shape, key=mx.random.key(0)))


class Block(nn.Module):
    """Two branches that are added, a gate, and a convolution of parameters alone."""

    def __init__(self):
        super().__init__()
        self.left = nn.Conv2d(4, 6, 3, padding=1)
        self.right = nn.Conv2d(4, 6, 1, bias=False)
        self.norm = nn.BatchNorm(6)
        self.gate = nn.Linear(6, 6)
        self.embed = nn.Conv2d(3, 6, 3, padding=1)
        self.position = mx.random.normal((1, 7, 6, 3), key=mx.random.key(3))
        self.head = nn.Conv2d(6, 2, 1)

    def __call__(self, x: mx.array) -> mx.array:
        y = nn.silu(self.norm(self.left(x)) + self.norm(self.right(x)))
        y = y * mx.sigmoid(self.gate(y.mean((1, 2))))[:, None, None]
        return mx.tanh(self.head(y + self.embed(self.position)))


def test_what_a_block_becomes():
    module = check_every_pass(ready(Block()), mx.random.normal((2, 7, 6, 4), key=mx.random.key(1)))
    # The first of the two added convolutions takes the sum; the gate ends its epilogue; the gated sum is the last's.
    assert fused(module) == {
        "embed": "Add",
        "left": "Add Add Sigmoid Multiply",
        "right": "Add",
        "head": "Add Tanh",
    }
    assert stretches(module) == [1, 2, 1]


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16], ids=str)
def test_batch_norm_behind_half_storage_stays_in_float32(dtype):
    """A scale of 9e4 would overflow a half weight; in the epilogue it meets the sum in float32."""
    x = (mx.random.normal((1, 6, 3), key=mx.random.key(1)) * 1e-3).astype(dtype)
    w = mx.random.normal((4, 1, 3), key=mx.random.key(2)).astype(dtype)
    scale = mx.full((4,), 3e4 if dtype == mx.float16 else 9e4).astype(dtype)
    arrays = [x, w, scale]
    arguments = [Argument("x", "input"), Argument("w", "parameter"), Argument("s", "parameter")]
    module = traced(lambda x, w, s: mx.conv1d(x, w) * s * s * (1 / 9e8), arrays, arguments)
    passes.run(module, passes.pipeline_for("simulator"))
    (got,) = reference.run(module, arrays)
    x, w, scale = (np.array(a.astype(mx.float32), np.float64) for a in arrays)
    want = x @ w[:, 0].T * scale**2 * float(mx.array(1 / 9e8).astype(dtype).astype(mx.float32).item())
    np.testing.assert_allclose(np.array(got.astype(mx.float32)), want, rtol=1e-2, atol=1e-4)
    (op,) = (o for o in module.walk() if isinstance(o, FusedOp))
    assert len(op.extras) == 1


def test_a_scale_that_is_a_scaled_convolution_of_parameters():
    """Both convolutions fold: the second one's scale is what the first one became."""
    keys = mx.random.split(mx.random.key(5), 4)
    x, p = mx.random.normal((1, 3, 3, 3), key=keys[0]), mx.random.normal((1, 1, 1, 4), key=keys[1])
    v, w = mx.random.normal((6, 1, 1, 4), key=keys[2]), mx.random.normal((6, 3, 3, 3), key=keys[3])

    def function(x: mx.array, p: mx.array, v: mx.array, w: mx.array) -> mx.array:
        scale = mx.conv2d(p, v) * 3.0
        return scale * mx.conv2d(x, w)

    arrays = [x, p, v, w]
    arguments = [Argument("x", "input"), *(Argument(name, "parameter") for name in "pvw")]
    module = traced(function, arrays, arguments)
    passes.run(module, passes.pipeline_for("simulator"))
    module.verify()
    assert_close(reference.run(module, arrays)[0], function(*arrays), 1e-4, "scaled")
    assert fused(module) == {"v": "", "w": ""}
