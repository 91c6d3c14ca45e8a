"""Permutations of axes, and what becomes of a primitive when its operands come in another order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any, NamedTuple

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
    """How many of a primitive's operands, from the first on, must come in the same order of axes."""
    return operands if name in ELEMENTWISE or name == "Concatenate" else 1


class Sunk(NamedTuple):
    """transpose(primitive(x), axes), which is a primitive of transposed operands.

    Attributes:
        name: of the primitive.
        arguments: of the primitive.
        axes: of the transpose.
    """

    name: str
    arguments: tuple[Any, ...]
    axes: Axes


def sunk(
    name: str, arguments: Sequence[Any], shape: tuple[int, ...], new_shape: tuple[int, ...], axes: Axes
) -> Sunk | None:
    """primitive(transpose(x, axes)) with the transpose behind the primitive; None if it cannot be written so.

    Args:
        name, arguments: of the primitive.
        shape: of the transposed operand.
        new_shape: of the primitive's first result.
        axes: of the transpose.
    """
    match name, arguments:
        case "Concatenate", (axis,):
            return Sunk(name, (axes[axis],), axes)
        case "Split", (indices, axis):
            return Sunk(name, (indices, axes[axis]), axes)
        case "Reduce", (kind, over):
            return Sunk(name, (kind, tuple(sorted(composed(axes, over)))), axes)
        case "Pad", (over, low, high):
            return Sunk(name, (composed(axes, over), low, high), axes)
        case "Slice", bounds:
            return Sunk(name, tuple(composed(b, inverse(axes)) for b in bounds), axes)
        case "Broadcast", _:
            added = len(new_shape) - len(shape)
            wide = (*range(added), *(axis + added for axis in axes))
            return Sunk(name, (composed(new_shape, inverse(wide)),), wide)
        case (("ExpandDims" | "Flatten" | "Reshape" | "Squeeze" | "Unflatten"), _):
            order = _order_behind_reshape(shape, new_shape, axes)
            return None if order is None else Sunk("Reshape", (composed(new_shape, inverse(order)),), order)
        case _:
            return Sunk(name, tuple(arguments), axes) if name in ELEMENTWISE else None


def _order_behind_reshape(shape: tuple[int, ...], new_shape: tuple[int, ...], axes: Axes) -> Axes | None:
    """The order in which the axes of x, reshaped alike, are those of transpose(x, axes), of shape `shape`, reshaped.

    None where axes are joined that are no neighbours in x.
    """
    if 0 in shape:
        return None
    places: list[tuple[int, int]] = []
    place = -1
    for old, new in _parts_of_reshape(shape, new_shape):
        joined = [axes[axis] for axis in old]
        if joined and joined != list(range(joined[0], joined[0] + len(joined))):
            return None
        place = joined[0] if joined else place
        places += [(place, axis) for axis in new]
    return inverse([axis for _, axis in sorted(places)])


def _parts_of_reshape(shape: tuple[int, ...], new_shape: tuple[int, ...]) -> Iterator[tuple[range, range]]:
    """Which axes become which: the smallest parts of equal size; an axis of extent 1 may come from or become none."""
    old = new = 0
    while old < len(shape) or new < len(new_shape):
        first_old, first_new = old, new
        goes, comes = shape[old : old + 1] == (1,), new_shape[new : new + 1] == (1,)
        old += goes or not comes
        new += comes or not goes
        while (size := prod(shape[first_old:old])) != (new_size := prod(new_shape[first_new:new])):
            old += size < new_size
            new += size > new_size
        yield range(first_old, old), range(first_new, new)
