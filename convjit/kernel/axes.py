"""Axes that kernels may treat as one."""

from __future__ import annotations

from math import prod

from convjit.kernel.epilogue import Extra


def merged_axes(shape: tuple[int, ...], operands: tuple[Extra, ...], *, keeps_last: bool) -> list[list[int]]:
    """The axes that become one each: neighbours along which the same operands vary. At least one, and another in front
    of the last if that keeps to itself."""
    last = len(shape) - 1
    groups: list[tuple[tuple[bool, ...], list[int]]] = []
    for axis, extent in enumerate(shape):
        varying = tuple(operand.shape[axis] > 1 for operand in operands)
        by_itself = keeps_last and axis == last
        if extent == 1 and not by_itself:
            continue
        if groups and groups[-1][0] == varying and not by_itself:
            groups[-1][1].append(axis)
        else:
            groups.append((varying, [axis]))
    axes = [axes for _, axes in groups]
    return axes if len(axes) > keeps_last else [[], *axes]


def merged(shape: tuple[int, ...], axes: list[list[int]]) -> tuple[int, ...]:
    return tuple(prod(shape[axis] for axis in group) for group in axes)
