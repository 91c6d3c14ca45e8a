"""Random chains of ops that only move elements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import mlx.core as mx
import numpy as np

Move = Callable[[mx.array], mx.array]

MOST_ELEMENTS = 20_000


def _factors(rng: np.random.Generator, size: int) -> list[int]:
    """Extents of an array of so many elements."""
    found: list[int] = []
    while size > 1 and len(found) < 5:
        factor = int(rng.choice([n for n in range(1, size + 1) if size % n == 0]))
        found.append(factor)
        size //= factor
    return [*found, size]


def random_move(rng: np.random.Generator, shape: tuple[int, ...]) -> Move:
    """One that an array of this shape can take."""
    axis = int(rng.integers(len(shape)))
    extent = shape[axis]
    match rng.integers(14):
        case 0 | 1:
            new = _factors(rng, prod(shape))
            return lambda x: x.reshape(new)
        case 2 | 3:
            order = rng.permutation(len(shape)).tolist()
            return lambda x: x.transpose(order)
        case 4:
            start, step = int(rng.integers(extent)), int(rng.choice([1, 1, 2, 3, -1, -2]))
            index = (*(slice(None),) * axis, slice(start, None, step))
            return lambda x: x[index]
        case 5:
            at = int(rng.integers(extent))
            return lambda x: mx.concatenate(mx.split(x, [0, at], axis)[::-1], axis)
        case 6 if 2 * prod(shape) <= MOST_ELEMENTS:
            return lambda x: mx.concatenate([x, mx.zeros(shape, x.dtype), -x], axis)
        case 7 if 2 * prod(shape) <= MOST_ELEMENTS and len(shape) < 6:
            return lambda x: mx.broadcast_to(mx.expand_dims(x, axis), (*shape[:axis], 2, *shape[axis:]))
        case 8:
            return lambda x: mx.roll(x, 1, axis)
        case 9 | 10 if prod(n + 3 for n in shape) <= MOST_ELEMENTS:
            widths = [(int(rng.integers(3)), int(rng.integers(2))) for _ in shape]
            return lambda x: mx.pad(x, widths, constant_values=0.5)
        case 11:
            boxes = [_random_box(rng, shape) for _ in range(int(rng.integers(1, 4)))]
            return lambda x: _with_assigned(x, boxes)
        case 12:
            first, step = int(rng.integers(extent)), float(rng.choice([0.5, 2 / 3, 1, 1.5, -1]))

            def gathered(x: mx.array) -> mx.array:
                places = mx.arange(extent) * step - (first if step > 0 else -first)
                places = mx.floor(mx.clip(places, 0, extent - 1)).astype(mx.int32)
                return x[(*(slice(None),) * axis, places)]

            return gathered
        case _:
            return lambda x: mx.flatten(x, axis)


def _random_box(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[slice, ...]:
    starts = [int(rng.integers(n)) for n in shape]
    return tuple(slice(start, int(rng.integers(start, n)) + 1) for start, n in zip(starts, shape, strict=True))


def _with_assigned(x: mx.array, boxes: Sequence[tuple[slice, ...]]) -> mx.array:
    """With multiples of the elements of boxes in it."""
    y = x + 0
    for number, box in enumerate(boxes, 1):
        y[box] = -number * x[box]
    return y


def random_moves(rng: np.random.Generator, shape: tuple[int, ...]) -> Move:
    """Up to six, one after the other."""
    moves: list[Move] = []
    example = mx.zeros(shape)
    for _ in range(int(rng.integers(1, 7))):
        moves.append(random_move(rng, example.shape))
        example = moves[-1](example)

    def moved(x: mx.array) -> mx.array:
        for move in moves:
            x = move(x)
        return x

    return moved
