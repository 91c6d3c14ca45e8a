"""Padding as people write it, and the padding modes that are not zeros.

Written as                          | means
------------------------------------|-----------------------------------------------------------------
`1`                                 | 1 on both sides of every spatial axis
`"same"`, `"valid"`, `"causal"`     | that, on every spatial axis
`(1, 2)` in 2D: an entry an axis    | an int: both sides of its axis
`((0, 1), (2, 1))`                  | a pair: before and after, top and bottom, left and right
`("causal", 1)`                     | a word; entries may be mixed
`(0, 1, 2, 1)`: two ints an axis    | the same pairs without brackets: top, bottom, left, right as in MAX

A sequence with an entry an axis is read as such, one with two ints an axis as pairs; so `(1, 2)` is before and after in
1D, and height and width in 2D. `mx.conv_general` has another order: all befores, then all afters.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, TypeAlias

import mlx.core as mx

Side: TypeAlias = int | str | Sequence[int]
Padding: TypeAlias = int | str | Sequence[Side]

WORDS = ("same", "valid", "causal")
MODES = ("zeros", "reflect", "replicate", "circular")


def is_int(value: object) -> bool:
    """Whether Python takes `value` for an integer; NumPy's are some."""
    return hasattr(value, "__index__")


def entries(padding: Any, rank: int) -> tuple[str | tuple[int, int], ...]:
    """`padding` as one word or (before, after) for each of `rank` spatial axes.

    Raises:
        ValueError: if it is none of the forms above, or negative.
    """
    flat = tuple(padding) if isinstance(padding, (list, tuple)) else (padding,) * rank
    if len(flat) == 2 * rank and all(is_int(side) for side in flat):
        flat = tuple(zip(flat[::2], flat[1::2], strict=True))
    if len(flat) != rank:
        raise ValueError(f"padding must be {_forms(rank)}, got {padding!r}")
    return tuple(_entry(side, padding, rank) for side in flat)


def _entry(side: Any, padding: Any, rank: int) -> str | tuple[int, int]:
    unknown = ValueError(f"padding must be {_forms(rank)}, got {padding!r}")
    if isinstance(side, str):
        if side not in WORDS:
            raise unknown
        return side
    try:
        before, after = (side, side) if is_int(side) else side
        pair = operator.index(before), operator.index(after)
    except (TypeError, ValueError):
        raise unknown from None
    if min(pair) < 0:
        raise ValueError(f"padding must not be negative, got {padding!r}: slice the input instead")
    return pair


def _forms(rank: int) -> str:
    words = "'same', 'valid', 'causal'"
    each = f"{rank} of these or of (before, after)" if rank > 1 else "(before, after)"
    return f"an int, {words}, {each}" + (f", or {2 * rank} ints" if rank > 1 else "")


def extend(x: mx.array, axis: int, before: int, after: int, mode: str) -> mx.array:
    """`x` with `before` and `after` more elements along `axis`, as `torch.nn.functional.pad` chooses them.

    Of `abcd`, two before and two after: reflect `cb|abcd|cb`, replicate `aa|abcd|dd`, circular `cd|abcd|ab`.

    Raises:
        ValueError: if a reflection or a turn needs more elements than the axis has.
    """
    if before == after == 0:
        return x
    size = x.shape[axis]
    longest = {"reflect": size - 1, "replicate": before + after if size else 0, "circular": size}[mode]
    if max(before, after) > longest:
        raise ValueError(
            f"{mode} padding of {(before, after)} takes more than the axis has, {size} elements: pad less, "
            "or use another padding_mode"
        )
    match mode:
        case "reflect":
            mirrored = _part(x, axis, None, None, -1)
            head, tail = _part(mirrored, axis, size - 1 - before, size - 1), _part(mirrored, axis, 1, 1 + after)
        case "circular":
            head, tail = _part(x, axis, size - before, size), _part(x, axis, 0, after)
        case _:
            head = mx.repeat(_part(x, axis, 0, 1), before, axis)
            tail = mx.repeat(_part(x, axis, size - 1, size), after, axis)
    parts = [part for part in (head, x, tail) if part.shape[axis]]
    return mx.concatenate(parts, axis)


def _part(x: mx.array, axis: int, start: int | None, stop: int | None, step: int = 1) -> mx.array:
    return x[(slice(None),) * axis + (slice(start, stop, step),)]
