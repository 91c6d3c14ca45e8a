"""Optimizers that make their state in their first step: they do so before it, and one program does for all steps."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from mlx.optimizers import Optimizer

from convjit.guards.walk import Walk
from convjit.tracing.clone import Clone
from convjit.tracing.randomness import random_state_kept
from convjit.tracing.tracers import capture_in_progress


def made_their_states(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], walk: Walk
) -> list[Optimizer]:
    """Call `Optimizer.init` of every optimizer for which a function is about to do so, with what it would give them.

    The function is run once, lazily, on a copy of its state. There, optimizers hand on what they are to make their
    state for: most often gradients, of which only the shapes count, so that nothing is computed.

    Args:
        function, args, kwargs: the call; it can be captured but for what it changes in its state.
        walk: all that the function reads besides its arguments.

    Returns:
        Those optimizers; more of the state may be new now.
    """
    found = [value for value in walk.alive if isinstance(value, Optimizer)]
    made: list[Optimizer] = []

    def handed_on(optimizer: Optimizer, twin: Optimizer) -> Callable[[dict[Any, Any]], None]:
        def init(parameters: dict[Any, Any]) -> None:
            optimizer.init(parameters)
            type(twin).init(twin, parameters)
            made.append(optimizer)

        return init

    if not found:
        return made
    clone = Clone(lambda container, key, array: copy.copy(array))
    run, *given = map(clone.follow, (function, args, kwargs))
    for optimizer in found:
        twin = clone.follow(optimizer)
        twin.init = handed_on(optimizer, twin)
    clone.expose(walk.uncopied)
    try:
        with capture_in_progress(), random_state_kept():
            run(*given[0], **given[1])
    finally:
        clone.cover()
    return made
