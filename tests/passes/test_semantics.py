"""Every pass keeps the meaning of every program: random networks, interpreted before and behind each pass."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
import reference as kernels
from graphs import Graph, random_graph
from xdsl.context import Context
from xdsl.dialects.arith import Arith
from xdsl.dialects.builtin import Builtin, ModuleOp, StringAttr
from xdsl.dialects.func import Func
from xdsl.dialects.math import Math
from xdsl.parser import Parser

from convjit import passes
from convjit.emit.region import kernel_of
from convjit.ir import reference
from convjit.ir.conv import CONV, FusedOp
from convjit.ir.mlx import MLX
from convjit.passes.choose_schedule import Refused
from convjit.passes.raise_conv import named_convolutions

TOLERANCE = {mx.float32: 1e-5, mx.float16: 2e-2, mx.bfloat16: 1e-1}


def assert_close(got: mx.array, want: mx.array, tolerance: float, what: str) -> None:
    assert got.shape == want.shape, what
    x, y = (np.array(a.astype(mx.float32)) for a in (got, want))
    np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance, err_msg=what)


def parsed(text: str) -> ModuleOp:
    context = Context()
    for dialect in (Builtin, Func, Arith, Math, CONV, MLX):
        context.load_dialect(dialect)
    return Parser(context, text).parse_module()


def lowered(graph: Graph, check) -> ModuleOp:
    """The module behind the whole pipeline; `check(name, module)` is called behind every pass."""
    refused: dict[str, str] = {}
    while True:
        module = graph.module()
        for layer, conv in named_convolutions(module):
            if layer in refused:
                conv.attributes["refused"] = StringAttr(refused[layer])
        check("trace", module)
        try:
            passes.run(module, passes.pipeline_for("simulator"), lambda p, m: check(p.name, m))
        except Refused as e:
            assert not refused.keys() & e.reasons.keys()
            refused.update(e.reasons)
            continue
        return module


def check_every_pass(graph: Graph) -> ModuleOp:
    want = graph.expected()
    checked: set[str] = set()

    def check(name: str, module: ModuleOp) -> None:
        module.verify()
        text = str(module)
        if text in checked:  # this pass found nothing to do
            return
        checked.add(text)
        for n, (got, expected) in enumerate(zip(reference.run(module, graph.inputs), want, strict=True)):
            assert_close(got, expected, TOLERANCE[graph.dtype], f"output {n} behind {name}")

    return lowered(graph, check)


@pytest.mark.parametrize("seed", range(40))
def test_every_pass_keeps_the_meaning(seed):
    check_every_pass(random_graph(seed))


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16], ids=str)
@pytest.mark.parametrize("seed", range(8))
def test_every_pass_keeps_the_meaning_of_half_networks(seed, dtype):
    check_every_pass(random_graph(100 + seed, dtype))


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16], ids=str)
@pytest.mark.parametrize("seed", range(0, 60, 10))
def test_what_passes_print_is_read_again(seed, dtype):
    def check(name: str, module: ModuleOp) -> None:
        text = str(module)
        assert str(parsed(text)) == text, name

    lowered(random_graph(seed, dtype), check)


@pytest.mark.parametrize("seed", range(0, 60, 2))
def test_kernels_mean_what_their_ops_mean(seed, monkeypatch):
    graph = random_graph(seed)
    module = graph.module()
    passes.run(module, passes.OPTIMIZE)
    seen = []
    evaluate = reference._evaluate

    def spy(op, operands):
        results = evaluate(op, operands)
        if isinstance(op, FusedOp):
            seen.append((op, operands, results))
        return results

    monkeypatch.setattr(reference, "_evaluate", spy)
    reference.run(module, graph.inputs)
    assert seen
    for op, (x, w, *extras), results in seen:
        kernel = kernel_of(op)
        shapes = [*kernel.operand_shapes, *(extra.shape for extra in kernel.extras)]
        x, w, *wide = (np.array(a).reshape(shape) for a, shape in zip((x, w, *extras), shapes, strict=True))
        want = kernels.results(kernel, x, w, wide)
        for got, expected in zip(results, want, strict=True):
            np.testing.assert_allclose(np.array(got).reshape(expected.shape), expected, rtol=1e-4, atol=1e-4)
