"""Permutations of axes, and what becomes of a primitive when its operands come in another order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from convjit.passes.elementwise import LOWERINGS

Axes = tuple[int, ...]
"""A permutation as `mx.transpose` takes it: axis n of the result is axis `axes[n]` of the operand."""

ELEMENTWISE = frozenset(LOWERINGS) | {"AsType"}


def composed(inner: Sequence[int], outer: Sequence[int]) -> tuple[int, ...]:
    """transpose(transpose(x, inner), outer) as one permutation; with a shape in place of `inner`, the new shape."""
    return tuple(inner[axis] for axis in outer)


def inverse(axes: Sequence[int]) -> Axes:
    """The permutation that undoes this one."""
    return tuple(sorted(range(len(axes)), key=lambda n: axes[n]))


def is_identity(axes: Sequence[int]) -> bool:
    return list(axes) == list(range(len(axes)))


def num_ordered(name: str, operands: int) -> int:
    """How many of a primitive's operands, from the first on, must come in the order of axes of its result."""
    return operands if name in ELEMENTWISE or name == "Concatenate" else 1


def sunk(name: str, arguments: Sequence[Any], axes: Axes) -> tuple[tuple[Any, ...], Axes] | None:
    """primitive(transpose(x, axes)) as transpose(primitive(x), other axes).

    Returns:
        The arguments of the primitive on x, and the other axes; None if it cannot be written so.
    """
    match name, arguments:
        case "Concatenate", (axis,):
            return (axes[axis],), axes
        case "Split", (indices, axis):
            return (indices, axes[axis]), axes
        case "Reduce", (kind, over):
            return (kind, tuple(sorted(composed(axes, over)))), axes
        case "Pad", (over, low, high):
            return (composed(axes, over), low, high), axes
        case "Slice", _:
            back = inverse(axes)
            return tuple(composed(bounds, back) for bounds in arguments), axes
        case "Squeeze", (dropped,):
            return (tuple(sorted(composed(axes, dropped))),), _without(axes, dropped)
        case "Flatten", (first, last):
            joined = axes[first : last + 1]
            if joined != tuple(range(joined[0], joined[0] + len(joined))):
                return None
            return (joined[0], joined[-1]), _without(axes, range(first + 1, last + 1))
        case _:
            return (tuple(arguments), axes) if name in ELEMENTWISE else None


def _without(axes: Axes, dropped: Sequence[int]) -> Axes:
    """The permutation that is left when these axes of the result go."""
    kept = [axis for n, axis in enumerate(axes) if n not in dropped]
    return tuple(sorted(kept).index(axis) for axis in kept)
