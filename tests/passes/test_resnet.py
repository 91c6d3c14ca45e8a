"""What ResNet-50 becomes: how many kernels, what is left between them, and one of its blocks as text."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten, tree_unflatten
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp

from convjit import passes
from convjit.ir.arguments import arguments_of
from convjit.ir.conv import FusedOp, PackOp, StretchOp
from convjit.ir.mlx import PrimitiveOp
from convjit.tracing.trace import Argument, record, to_module
from examples.models import Bottleneck, ResNet50


def traced(net: nn.Module, shape: tuple[int, ...]) -> ModuleOp:
    """The IR of a network, whose parameters need not be evaluated for it."""
    names, weights = zip(*tree_flatten(net.eval().parameters()), strict=True)

    def call(x: mx.array, *tracers: mx.array) -> list[mx.array]:
        net.update(tree_unflatten(list(zip(names, tracers, strict=True))))
        return [net(x)]

    tape = record(call, [mx.zeros(shape), *weights])
    return to_module(tape, [Argument("x", "input"), *(Argument(name, "parameter") for name in names)])[0]


def function(module: ModuleOp, name: str) -> FuncOp:
    return next(op for op in module.body.block.ops if isinstance(op, FuncOp) and op.sym_name.data == name)


@pytest.fixture(scope="module")
def resnet():
    module = traced(ResNet50(), (1, 64, 64, 3))
    passes.run(module, passes.pipeline_for("simulator"))
    module.verify()
    return module


def test_it_is_two_stretches(resnet):
    """MLX pools behind the first convolution; all others run back to back."""
    stretches = [op for op in function(resnet, "forward").walk() if isinstance(op, StretchOp)]
    assert [sum(isinstance(op, FusedOp) for op in s.body.block.ops) for s in stretches] == [1, 52]
    assert [len(s.outputs) for s in stretches] == [1, 1]


def test_no_elementwise_op_is_left_between_the_kernels(resnet):
    plain = [op.primitive.data for op in function(resnet, "forward").body.block.ops if isinstance(op, PrimitiveOp)]
    assert not {"Add", "Subtract", "Multiply", "Divide", "Sqrt", "Maximum", "Convolution"} & set(plain)


def test_weights_are_folded_and_packed_once(resnet):
    assert sum(isinstance(op, PackOp) for op in function(resnet, "prepare").body.block.ops) == 53
    assert not any(isinstance(op, PackOp) for op in function(resnet, "forward").walk())
    kinds = [argument.kind for argument in arguments_of(function(resnet, "forward"))]
    assert kinds == sorted(kinds) and kinds.count("input") == 1
    assert kinds.count("parameter") == 1  # the classifier's bias; its weight arrives transposed


def test_a_block_as_text(golden):
    """What runs in every call; `@prepare` is left to the tests of fold-scale."""
    module = traced(Bottleneck(16, 4, 1), (1, 4, 4, 16))
    passes.run(module, f"{passes.OPTIMIZE},hoist-prepare,form-stretches")
    golden("bottleneck.mlir", str(function(module, "forward")) + "\n")
