"""How elementwise kernels prove themselves: what they read, which results are looked at, and what these may be.

Every value is computed in fp32 step by step, as a kernel does it, and twice more with all operands moved by as much as
its own rounding may move them: between the three lies what is right, also where a step jumps. Sums are those of such
values, in double precision; what a kernel's order of additions does to them is bounded by their length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import ceil, prod

import mlx.core as mx
import numpy as np

from convjit.backends import MLX_DTYPES
from convjit.kernel import Elementwise, Epilogue
from convjit.proof.oracle import TOLERANCE, Array, Bounds, Outputs, Places, Stored, evaluate, pick, rounded
from convjit.proof.samples import of_elements, suspects
from convjit.schedule import Schedule

_ROUNDING = 2.0**-20
"""Of all steps to one value, relative to it and to 1: functions are within 6 units in the last place."""

_LENGTHS = 8
"""Rounding errors of n additions in any order stay below this times sqrt(n), all but certainly, of half a unit in the
last place of the sum of magnitudes (Higham and Mary, SIAM J. Sci. Comput. 41, 2019)."""

_TRIED = 256
"""Elements at which signs are tried."""

_MOST_TERMS = 1 << 16
"""Of all sums together that are looked at, if these are more than the first and the last channel; and in memory."""


def inputs(kernel: Elementwise, generator: np.random.Generator) -> list[mx.array]:
    """Random operands, about as large as 1 and never near 0, so that quotients are neither large nor small; of either
    sign, where no logarithm or root of theirs is NaN for it."""
    drawn = [generator.uniform(0.25, 1.75, o.shape).astype(np.float32) for o in kernel.operands]
    tried = np.unravel_index(generator.integers(0, prod(kernel.shape), _TRIED), kernel.shape)
    for number, magnitudes in enumerate(drawn):
        signed = magnitudes * generator.choice(np.array([-1, 1], np.float32), magnitudes.shape)
        attempt = [*drawn[:number], signed, *drawn[number + 1 :]]
        with np.errstate(all="ignore"):
            results = evaluate(kernel.body, [pick(a, tried) for a in attempt], (_TRIED,))
        if np.isfinite(results).all():
            drawn = attempt
    return [mx.array(a).astype(MLX_DTYPES[o.dtype]) for a, o in zip(drawn, kernel.operands, strict=True)]


@np.errstate(all="ignore")
def checks(
    kernel: Elementwise,
    schedule: Schedule,
    arrays: Sequence[Stored],
    results: Sequence[Stored],
    generator: np.random.Generator,
) -> list[tuple[Outputs, Bounds]]:
    """For each result, where to look and what must be there.

    Args:
        kernel, schedule: what ran.
        arrays: its operands.
        results: what it gave.
        generator: decides where to look.
    """
    *rows, columns = kernel.shape
    row, column = of_elements((prod(rows), columns), schedule, generator)
    places = _places(row * columns + column, kernel, results, is_sum=False)
    channels = _places(_channels(kernel, generator), kernel, results, is_sum=True)
    elements = _elements(kernel, arrays, np.unravel_index(places, kernel.shape), generator)
    sums = _sums(kernel, arrays, channels, generator) if kernel.has_sums else elements
    return [
        ((channels,), sums[number]) if result.is_sum else (np.unravel_index(places, result.shape), elements[number])
        for number, result in enumerate(kernel.results)
    ]


def _places(chosen: Places, kernel: Elementwise, results: Sequence[Stored], *, is_sum: bool) -> Places:
    """`chosen`, and where results of this kind are not finite."""
    alike = [array for array, result in zip(results, kernel.results, strict=True) if result.is_sum == is_sum]
    return np.concatenate([chosen, *map(suspects, alike)])


def _channels(kernel: Elementwise, generator: np.random.Generator) -> Places:
    """Those whose sums are looked at: all, or the ends and random ones."""
    channels = kernel.shape[-1]
    count = max(2, _MOST_TERMS // prod(kernel.shape[:-1]))
    if channels <= count:
        return np.arange(channels)
    return np.concatenate([[0, channels - 1], generator.integers(0, channels, count - 2)])


def _elements(
    kernel: Elementwise, arrays: Sequence[Stored], at: Outputs, generator: np.random.Generator
) -> list[Bounds]:
    """Of every result, as if none were a sum."""
    found: list[Bounds] = []
    steps = {TOLERANCE[i.type] for i in kernel.body.instructions if i.type in TOLERANCE}
    every = _values(kernel.body, [pick(a, at) for a in arrays], at[0].shape, generator)
    for values, dtype in zip(every, kernel.result_dtypes, strict=True):
        slack = max({TOLERANCE[dtype], *steps}) * (1 + np.abs(values).max(0))
        found.append(_bounds(values[0], values.min(0), values.max(0), slack))
    return found


def _sums(
    kernel: Elementwise, arrays: Sequence[Stored], channels: Places, generator: np.random.Generator
) -> list[Bounds]:
    """Of every result, as if all were sums. A kernel rounds a sum to its type once, and none of its terms."""
    read = [np.broadcast_to(a, kernel.shape)[..., channels].reshape(-1, len(channels)) for a in arrays]
    length = prod(kernel.shape[:-1])
    body = _without_last_rounding(kernel.body)
    exact, low, high, magnitude = np.zeros((4, len(kernel.results), len(channels)))
    for part in np.array_split(np.arange(length), ceil(length * len(channels) / _MOST_TERMS)):
        terms = _values(body, [columns[part] for columns in read], (len(part), len(channels)), generator)
        exact += terms[:, 0].sum(1)
        low += terms.min(1).sum(1)
        high += terms.max(1).sum(1)
        magnitude += np.abs(terms).max(1).sum(1)
    slack = _ROUNDING * (length + magnitude) + _LENGTHS * length**0.5 * 2.0**-24 * magnitude
    return [
        Bounds(*(rounded(values[number], dtype) for values in _bounds(exact, low, high, slack)))
        for number, dtype in enumerate(kernel.result_dtypes)
    ]


def _bounds(exact: Array, low: Array, high: Array, slack: Array) -> Bounds:
    """`exact`, and what lies no further than `slack` outside of `low` and `high`; infinities have no slack."""
    return Bounds(exact, np.where(np.isinf(low), low, low - slack), np.where(np.isinf(high), high, high + slack))


def _values(
    body: Epilogue, operands: Sequence[Array | Stored], shape: tuple[int, ...], generator: np.random.Generator
) -> Array:
    """Each result for operands of this shape, and for two others beside them: results x 3 x `shape`."""
    nearby: list[Array | Stored] = []
    for operand in operands:
        reach = operand * generator.choice([-_ROUNDING, _ROUNDING], operand.shape)
        nearby.append(np.stack([operand, operand + reach, operand - reach]))
    return np.stack(evaluate(body, nearby, (3, *shape)))


def _without_last_rounding(body: Epilogue) -> Epilogue:
    """`body`, which gives its results before they are rounded to a half type."""
    first = len(body.inputs)
    made = [body.instructions[r - first] if r >= first else None for r in body.results]
    results = [i.operands[0] if i and i.op == "arith.truncf" else r for i, r in zip(made, body.results, strict=True)]
    return replace(body, results=tuple(results))
