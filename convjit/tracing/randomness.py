"""MLX's random numbers in compiled functions: this thread's random state as a value.

A draw without an explicit key splits the random state in two: one half is the key of the draw, the other is the new
state. So a function that draws is a pure one of its arguments and the state; it returns the new state as well. Knows
MLX and nothing of the rest.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx


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
