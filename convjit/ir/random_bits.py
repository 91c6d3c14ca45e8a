"""The bits behind every draw of MLX's random numbers. Knows MLX and nothing of the rest."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import mlx.core as mx

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA


def random_bits(key: mx.array, shape: Sequence[int]) -> mx.array:
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
