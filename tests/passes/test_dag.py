"""What joins a convolution, and what is looked at to find that out."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import pytest
from graphs import traced
from xdsl.ir import Operation

from convjit import passes
from convjit.ir.conv import GeneralOp
from convjit.ir.mlx import PrimitiveOp
from convjit.passes import dag
from convjit.tracing.trace import Argument


def dag_of(behind: Callable[[mx.array], object]) -> dag.Dag:
    """Of a convolution whose result `behind` takes."""
    arrays = [mx.zeros((1, 6, 6, 3)), mx.zeros((4, 3, 3, 3))]
    arguments = [Argument("x", "input"), Argument("conv.weight", "parameter")]
    module = traced(lambda x, w: behind(mx.conv2d(x, w)), arrays, arguments)
    passes.run(module, "raise-conv")
    conv = next(op for op in module.walk() if isinstance(op, GeneralOp))
    return dag.maximal_dag(conv, 8, 4)


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
