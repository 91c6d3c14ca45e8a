"""One call of a user's function, and all that the function reads besides its arguments."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from convjit.guards.guard import Arguments, argument_paths, parameter_names, read_arguments
from convjit.guards.reads import Closed, Reads
from convjit.guards.walk import Walk
from convjit.tracing import trees
from convjit.tracing.capture import Pure
from convjit.tracing.clone import Clone


@dataclass(frozen=True, slots=True)
class CallSite:
    """The call that made a capture necessary.

    Attributes:
        name: the compiled function's, for messages.
        function, args, kwargs: the call.
        arguments: the same, taken apart.
        walk: what the function reads besides them.
        also: of a narrowed call, the objects that it reads, whichever way it reaches them, and their paths.
    """

    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    arguments: Arguments
    walk: Walk
    also: Sequence[tuple[Any, str]] = ()

    @staticmethod
    def of(
        name: str,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        arguments: Arguments,
        reads: Reads | None = None,
        also: Sequence[tuple[Any, str]] = (),
    ) -> CallSite:
        """Walk through all that a function reads; through those attributes that it `reads`, where that is known."""
        _, paths = argument_paths(args, kwargs, parameter_names(function))
        outermost = [(function, ""), *zip(arguments.modules, paths, strict=True), *also]
        closed: Closed = {}
        walk = _walk(outermost, Walk(reads, closed))
        while walk.closed != closed:  # what is behind a closed attribute may be reached in another way, too
            closed = walk.closed
            walk = _walk(outermost, Walk(reads, closed))
        return CallSite(name, function, args, kwargs, arguments, walk, also)

    @property
    def pure(self) -> Pure:
        return Pure(self.function, self.args, self.kwargs, self.walk)

    def narrowed(self) -> CallSite:
        """The same call, without the attributes that runs of `pure` did not read."""
        if not self.walk.leaves_out_some:
            return self
        call = (self.name, self.function, self.args, self.kwargs, self.arguments)
        return CallSite.of(*call, self.walk.reads, self.walk.read_objects())

    def copied(self) -> CallSite:
        """The same call of a copy of all that it reads, which stays as it is now; its slots are in the same order.

        In its slots and arguments, arrays count for their shapes and dtypes.
        """
        slots = {(id(slot.container), slot.key) for slot in self.walk.slots}

        def replacement(container: Any, key: Any, array: mx.array) -> mx.array:
            return mx.zeros(array.shape, array.dtype) if (id(container), key) in slots else copy.copy(array)

        clone = Clone(replacement)

        def copied(argument: Any) -> Any:
            return trees.replaced(argument, lambda array: mx.zeros(array.shape, array.dtype), clone.follow)

        function, args = clone.follow(self.function), tuple(map(copied, self.args))
        kwargs = {name: copied(value) for name, value in self.kwargs.items()}
        reads = self.walk.reads.by(clone.original)
        also = [(clone.follow(value), path) for value, path in self.also]
        return CallSite.of(self.name, function, args, kwargs, read_arguments(args, kwargs), reads, also)


def _walk(outermost: Sequence[tuple[Any, str]], walk: Walk) -> Walk:
    try:
        for value, path in outermost:
            walk.follow(value, path)
        walk.look_through_views()
    except RecursionError:
        walk.obstacles.append("it reads objects that hold each other too deep to be followed")
    return walk
