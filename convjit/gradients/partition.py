"""One tape of results and gradients -> two: what runs forward, and what runs backward, once there are cotangents.

    x, w, c -> a = conv(x, w), y = max(a, 0);        dw = conv'(x, c * (a > 0))
->
    x, w    -> a = conv(x, w), y = max(a, 0), and a, which is kept
    x, a, c -> dw = conv'(x, c * (a > 0))

The backward half needs values of the forward one. Kept are those that lie in memory anyway, because something that is
not elementwise makes or reads them; what lies between them is computed again, and fuses with what reads it. What no
result needs is left to the backward half, where passes find all of a gradient. A ReLU's
mask comes from its result, which the next convolution reads, where possible: then nothing is computed again for it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx

from convjit.passes.elementwise import LOWERINGS
from convjit.tracing.trace import Tape

_VIEWS = {"AsStrided", "Broadcast", "ExpandDims", "Flatten", "Full", "Pad", "Reshape", "Slice", "Squeeze", "Transpose"}
"""Primitives that only arrange what is there."""

_CHEAP = frozenset({*LOWERINGS, *_VIEWS, "AsType", "Unflatten"})


@dataclass(frozen=True, slots=True)
class Halves:
    """A tape in two.

    Attributes:
        forward: early inputs -> results, then what is kept.
        backward: all inputs, what is kept in front of the last ones -> gradients.
        num_kept: how many values are kept.
    """

    forward: Tape
    backward: Tape
    num_kept: int


def partition(tape: Tape, cotangents: Collection[str], num_results: int, num_last: int) -> Halves:
    """Split a tape.

    Args:
        tape: its outputs are results, then gradients.
        cotangents: the inputs that only gradients depend on.
        num_results: how many of the outputs are results.
        num_last: how many of the inputs are to be the last ones of either half.
    """
    tape = replace(tape, primitives=_reading_maxima(tape.primitives))
    makers = {name: p for p in tape.primitives for name, *_ in p["outputs"]}
    late = set(cotangents)
    for p in tape.primitives:
        if any(name in late for name, *_ in p["inputs"]):
            late.update(name for name, *_ in p["outputs"])
    results, gradients = tape.outputs[:num_results], tape.outputs[num_results:]
    stored = _stored(_names(results), makers)
    _, kept = _behind(_names(gradients), makers, lambda name: name in stored and name not in late)
    types = {name: (tuple(shape), dtype) for p in tape.primitives for name, shape, dtype in p["outputs"]}
    outputs = [*results, *((name, *types[name]) for name in kept)]
    first, last = tape.inputs[: len(tape.inputs) - num_last], tape.inputs[len(tape.inputs) - num_last :]
    return Halves(
        _half(tape, [name for name in tape.inputs if name not in cotangents], outputs, types, makers),
        _half(tape, [*first, *kept, *last], gradients, types, makers),
        len(kept),
    )


def _reading_maxima(primitives: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The primitives, with max(x, c) > c for x > c where that was computed; these are equal, for a NaN, too.

    That is `passes.masks.read_maxima` ahead of any IR: what is kept is decided on the tape. On it, the gradients that
    MLX makes compare with the very array of the maximum, so no constant has to be looked up.
    """
    maxima: dict[tuple[str, ...], Any] = {}
    found: list[dict[str, Any]] = []
    for p in primitives:
        operands = tuple(_names(p["inputs"]))
        if p["name"] == "Maximum":
            maxima[operands] = p["outputs"][0]
        elif p["name"] == "Greater" and operands in maxima:
            p = p | {"inputs": [maxima[operands], p["inputs"][1]]}
        found.append(p)
    return found


def _names(arrays: Iterable[tuple[str, tuple[int, ...], mx.Dtype]]) -> list[str]:
    return [name for name, *_ in arrays]


def _behind(
    names: Iterable[str], makers: dict[str, dict[str, Any]], is_given: Callable[[str], bool]
) -> tuple[set[int], list[str]]:
    """The ids of the primitives behind these values, and those of the values behind them that are given."""
    primitives, given, seen = set[int](), list[str](), set[str]()
    found = list(names)
    while found:
        name = found.pop()
        if name in seen or name not in makers:
            continue
        seen.add(name)
        if is_given(name):
            given.append(name)
        else:
            primitives.add(id(makers[name]))
            found += _names(makers[name]["inputs"])
    return primitives, given


def _stored(results: Iterable[str], makers: dict[str, dict[str, Any]]) -> set[str]:
    """The values behind the results that something not elementwise makes or reads; of views, what they are of."""
    primitives, _ = _behind(results, makers, lambda name: False)
    found = set[str]()
    for p in makers.values():
        if id(p) in primitives and p["name"] not in _CHEAP:
            found.update(_names(p["outputs"]))
            found.update(_viewed(name, makers) for name in _names(p["inputs"]))
    return found


def _viewed(name: str, makers: dict[str, dict[str, Any]]) -> str:
    while name in makers and makers[name]["name"] in _VIEWS:
        inputs = _names(makers[name]["inputs"])
        name = inputs[0]
    return name


def _half(
    tape: Tape,
    inputs: list[str],
    outputs: list[tuple[str, tuple[int, ...], mx.Dtype]],
    types: dict[str, tuple[tuple[int, ...], mx.Dtype]],
    makers: dict[str, dict[str, Any]],
) -> Tape:
    """The part of a tape between these inputs and outputs."""
    given = set(inputs)
    primitives, _ = _behind(_names(outputs), makers, given.__contains__)
    kept = [p for p in tape.primitives if id(p) in primitives]
    read = {*_names(outputs), *(name for p in kept for name in _names(p["inputs"]))}
    constants = {name: array for name, array in tape.constants.items() if name in read}
    return Tape(inputs, outputs, constants, {name: (tape.shapes | types)[name] for name in inputs}, kept)
