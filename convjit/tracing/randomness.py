"""MLX's random numbers in compiled functions: this thread's random state as a value, and the bits behind every draw.

A draw without an explicit key splits the random state in two: one half is the key of the draw, the other is the new
state. So a function that draws is a pure one of its arguments and the state; it returns the new state as well. Knows
MLX and nothing of the rest.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any

import mlx.core as mx

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA


def random_state() -> mx.array:
    """What `mx.random` draws from next in this thread: every draw, and `mx.random.seed`, makes another array of it."""
    state: Any = mx.random.state
    return state[0]


def set_random_state(key: mx.array) -> None:
    """Draw from `key` next, in this thread; it may be lazy, or a tracer."""
    mx.random.seed(0)  # a new array, which nobody else holds: MLX lets it be written, not replaced
    random_state()[...] = key


@contextmanager
def random_state_kept() -> Generator[None]:
    """What is drawn while this is entered does not count afterwards."""
    key = random_state()
    try:
        yield
    finally:
        set_random_state(key)


def bits(key: mx.array, shape: Sequence[int]) -> mx.array:
    """32 random bits for each element, as MLX's primitive `RandomBits` draws them.

    `mx.random.split` gives the same bits, in pairs. Of an odd number, the middle one is counted differently.

    Args:
        key: a random key, of shape (2,).
        shape: the shape of the result, whose dtype is uint32.
    """
    count = prod(shape)
    pairs = mx.random.split(key, (count + 1) // 2).flatten()
    if count % 2:
        middle = count // 2
        pairs = mx.concatenate([pairs[:middle], _threefry(key, middle), pairs[middle + 1 : count]])
    return pairs.reshape(shape)


def _threefry(key: mx.array, counter: int) -> mx.array:
    """The first word of Threefry-2x32-20 of (`counter`, 0).

    Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC'11.
    """
    schedule = (key[:1], key[1:], key[:1] ^ key[1:] ^ mx.array(_PARITY, mx.uint32))
    first, second = schedule[0] + mx.array(counter, mx.uint32), schedule[1]
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            first = first + second
            second = ((second << rotation) | (second >> (32 - rotation))) ^ first
        first = first + schedule[(group + 1) % 3]
        second = second + schedule[(group + 2) % 3] + mx.array(group + 1, mx.uint32)
    return first
