"""What joins a convolution, and what is looked at to find that out."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import numpy as np
import pytest
from graphs import traced
from xdsl.ir import Operation

import convjit
from convjit import passes
from convjit.ir.conv import GeneralOp
from convjit.ir.mlx import PrimitiveOp
from convjit.passes import dag
from convjit.tracing.trace import Argument


def dag_of(behind: Callable[[mx.array], object], max_results: int = 4) -> dag.Dag:
    """Of a convolution whose result `behind` takes."""
    arrays = [mx.zeros((1, 6, 6, 3)), mx.zeros((4, 3, 3, 3))]
    arguments = [Argument("x", "input"), Argument("conv.weight", "parameter")]
    module = traced(lambda x, w: behind(mx.conv2d(x, w)), arrays, arguments)
    passes.run(module, "raise-conv")
    conv = next(op for op in module.walk() if isinstance(op, GeneralOp))
    return dag.maximal_dag(conv, 8, max_results)


def names(ops: list[Operation]) -> list[str]:
    return [op.primitive.data for op in ops if isinstance(op, PrimitiveOp)]


def test_what_does_not_join_is_moved_behind_what_does():
    made = dag_of(lambda y: [total := mx.cumsum(y, axis=1), mx.square(total), mx.abs(y), mx.cumsum(total, axis=2)])
    assert names(made.ops) == ["Abs"]
    assert names(made.moved) == ["Scan", "Square"]


def test_only_what_reads_the_dag_is_tried(monkeypatch: pytest.MonkeyPatch):
    """A deep train step reads each layer's result again far behind: all between would be tried for each layer."""
    tried: list[Operation] = []
    original = dag._extras_if_it_joins
    monkeypatch.setattr(dag, "_extras_if_it_joins", lambda op, *rest: tried.append(op) or original(op, *rest))

    def behind(y: mx.array) -> mx.array:
        total = y
        for _ in range(30):
            total = mx.square(mx.cumsum(total, axis=1))
        return total + mx.abs(y)

    assert names(dag_of(behind).ops) == ["Abs"]
    assert names(tried) == ["Scan", "Abs", "Add"]


@pytest.mark.parametrize("seed", range(30))
def test_as_many_ops_join_as_have_few_results(seed: int):
    rng = np.random.default_rng(seed)

    def behind(y: mx.array) -> list[mx.array]:
        values = [y]
        for _ in range(20):
            a, b = (values[-int(n)] for n in rng.integers(1, min(5, len(values) + 1), 2))
            values.append(mx.sin(a) if rng.random() < 0.5 else a * b)
        return values

    made = dag_of(lambda y: [*(v for v in behind(y)[1:-1] if rng.random() < 0.4), y], max_results=99)
    fewest = len(made.results())
    counts = [len(dag.Dag(made.root, made.ops[:number]).results()) for number in range(len(made.ops))]
    for most in range(1, fewest):
        assert dag._most_ops(made, most) == max(n for n, count in enumerate(counts) if count <= most)


def test_what_nobody_reads_is_no_result():
    """Of two predicates, both readers have copies; the backward pass allows one result."""
    x, w, u = (mx.random.normal(s, key=mx.random.key(1)) for s in ((1, 6, 6, 3), (4, 3, 3, 3), (1, 4, 4, 4)))

    def function(x: mx.array, w: mx.array, u: mx.array) -> mx.array:
        y = mx.conv2d(x, w)
        above = y > 0
        return mx.where(mx.logical_not(above), y * 0.5, u) + mx.where(above, y, u * 2)

    fast = convjit.compile(function, fallback="error")
    np.testing.assert_allclose(fast(x, w, u), function(x, w, u), rtol=1e-5, atol=1e-5)
    ir = convjit.inspect.ir(fast).partition("@forward")[2]
    assert ir.count("conv.fused") == 1 and "conv.yield %sum" not in ir and "mlx.primitive" not in ir


def test_integers_are_no_maxima_of_floats():
    """As float64, 2^53 and 2^53 + 1 are one number."""
    x, w, k = mx.ones((1, 3, 3, 2)), mx.ones((2, 3, 3, 2)), mx.array([0, 5], dtype=mx.int64)

    def function(x: mx.array, w: mx.array, k: mx.array) -> list[mx.array]:
        return [mx.conv2d(x, w), mx.maximum(k, 2**53 + 1), (k > 2**53).astype(mx.float32)]

    fast = convjit.compile(function, fallback="error")
    for got, want in zip(fast(x, w, k), function(x, w, k), strict=True):
        assert mx.array_equal(got, want)
