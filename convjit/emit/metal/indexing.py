"""Where elements lie: index expressions that several templates share."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from textwrap import wrap

from convjit.geometry import Geometry


def table(name: str, numbers: Sequence[int]) -> list[str]:
    """Constants in front of a kernel: the lines of their definition."""
    lines = wrap(", ".join(map(str, numbers)), 116)
    if len(lines) == 1 and len(lines[0]) < 60:
        return [f"constant constexpr int {name}[{len(numbers)}] = {{{lines[0]}}};"]
    return [f"constant constexpr int {name}[{len(numbers)}] = {{", *(f"  {line}" for line in lines), "};"]


def index_type(*elements: int) -> str:
    """The type of an offset below each of these: 32 bits where they suffice, which are several times as fast."""
    return "int" if max(elements) < 2**31 else "long"


def index_of(g: Geometry) -> str:
    """The type of offsets into one image's input and output and into the weight, and of padded positions."""
    return index_type(
        prod(g.in_size) * g.in_channels, prod(g.weight_shape), prod(g.out_size) * g.out_channels, *g.padded_size
    )


def shifted(text: str, by: int) -> str:
    """`text` + by, as one writes it."""
    return f"{text} + {by}" if by > 0 else f"{text} - {-by}" if by < 0 else text


def row_major(positions: Sequence[str | None], sizes: Sequence[int], scale: int = 1) -> str:
    """The offset of an element; None is an axis of extent 1. Empty if all are."""
    offset = ""
    for position, size in zip(positions, sizes, strict=True):
        if position == "0" and offset:
            offset = f"{offset} * {size}"
        elif position is not None:
            offset = f"({offset} * {size} + {position})" if offset else position
    return f"{offset} * {scale}" if offset and scale > 1 else offset


def digit(number: str, counts: Sequence[int], i: int) -> str:
    """Digit i of a number in mixed radix: the position along axis i of element `number` of an array of this shape."""
    if counts[i] == 1:
        return "0"
    inner = prod(counts[i + 1 :])
    text = f"{number} / {inner}" if inner > 1 else number
    return f"{text} % {counts[i]}" if prod(counts[:i]) > 1 else text


def pixel_positions(out_size: Sequence[int], names: str) -> list[tuple[str, str]]:
    """How the axes of the output, those longer than 1, are found in the number of a pixel: (axis, expression)."""
    return [(name, digit("pixel", out_size, i)) for i, name in enumerate(names) if out_size[i] > 1]
