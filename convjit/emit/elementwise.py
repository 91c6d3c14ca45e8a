"""What the texts of elementwise kernels have in common."""

from __future__ import annotations

from convjit.kernel import Elementwise


def title(kernel: Elementwise) -> str:
    """What a text does, in words; `kernel` is one of `Elementwise.any_batch`."""
    results = ["sums over all rows" if r.is_sum else "all elements" for r in kernel.results]
    operands = ", ".join(f"{_extents(operand.shape)} of {operand.dtype}" for operand in kernel.operands)
    return f"Elementwise ops on {_extents(kernel.shape)}: reads {operands}; gives {', '.join(results)}."


def _extents(shape: tuple[int, ...]) -> str:
    """With n for the outermost extent, unless it is 1."""
    return "x".join("n" if axis == 0 and extent > 1 else str(extent) for axis, extent in enumerate(shape))
