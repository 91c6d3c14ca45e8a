"""Values that were computed elsewhere as results of MLX's own graph, for all that MLX does with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from itertools import chain
from typing import Any

import mlx.core as mx

Arrays = list[mx.array]


def tied(
    values: Arrays,
    arrays: Arrays,
    plain: Callable[[Arrays], Arrays],
    vjp: Callable[[Arrays, Arrays, Any], Arrays] | None = None,
) -> Arrays:
    """`values`, which MLX takes for `plain(arrays)` from now on, whatever it does with them.

    Args:
        values: what was computed.
        arrays: what it was computed from.
        plain: a function that computes the same by operations of MLX.
        vjp: (arrays, cotangents, values) -> gradients; by default those of `plain`.
    """

    def plain_vjp(primals: Arrays, cotangents: Arrays, _: Any) -> Arrays:
        # MLX drops all but one cotangent of an array that comes twice
        return mx.vjp(lambda *arrays: [a + 0 for a in plain(list(arrays))], primals, cotangents)[1]

    def jvp(primals: Arrays, tangents: Sequence[mx.array | None]) -> Arrays:
        along = [mx.zeros_like(p) if t is None else t for p, t in zip(primals, tangents, strict=True)]
        return mx.jvp(lambda *arrays: plain(list(arrays)), primals, along)[1]

    custom: Any = mx.custom_function(lambda _: values)
    custom.vjp(vjp or plain_vjp)
    custom.jvp(jvp)
    return custom(arrays)


def joined(values: Arrays, ties: list[Arrays]) -> Arrays:
    """`values` as each of `ties` has them, with the gradients and tangents of all."""
    if len(ties) < 2:
        return ties[0] if ties else values
    return tied(
        values,
        [*chain(*ties)],
        lambda arrays: [reduce(mx.add, arrays[n :: len(values)]) for n in range(len(values))],
        lambda _, cotangents, outputs: [*cotangents] * len(ties),
    )
