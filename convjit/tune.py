"""`convjit.tune`: measure the ways to run each convolution of a compiled function here, and keep the fastest.

fast = convjit.compile(model)
print(convjit.tune(fast, x))                    # a table; `fast` and later processes use what was the fastest

fast = convjit.compile(model, tune=True)        # the same at the first call, for kernels that are new here
CONVJIT_TUNE=1 python generate.py               # the same for every compiled function of a program
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convjit.tuning.program import Tuning


def tune(fast: Any, *args: Any, **kwargs: Any) -> Tuning:
    """Measure the ways to run each convolution of `fast`, and use the fastest from now on, in later processes too.

    Runs `fast(*args, **kwargs)` once. Each kernel of it is measured by itself, on random inputs of its shapes: every
    schedule that the backend offers and that is proven right on this machine, and MLX's own op with the epilogue
    behind it. What is at least 10% faster than what ran so far takes its place. On the CPU, MLX's own op is measured
    only for convolutions below 1 GFLOP.

    Args:
        fast: what `convjit.compile` returned.
        args, kwargs: of a call, as typical as possible: kernels are measured for exactly these shapes.

    Returns:
        What was measured, in milliseconds; printed, it is a table.

    Raises:
        TypeError: if `fast` is not a compiled function.

    Example:
        >>> print(convjit.tune(fast, x))
    """
    from convjit.compiled import compiled_of
    from convjit.tuning.program import Tuning, collected

    compiled = compiled_of(fast)
    with collected() as rows:
        compiled._forget()  # pyright: ignore[reportPrivateUsage]
        fast(*args, **kwargs)
    return Tuning(compiled._name, tuple(rows))  # pyright: ignore[reportPrivateUsage]
