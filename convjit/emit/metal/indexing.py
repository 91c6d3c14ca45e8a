"""Where elements lie: index expressions that several templates share."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from textwrap import wrap
from typing import Any

from convjit.emit.epilogue import statements
from convjit.emit.metal.language import METAL, TYPES
from convjit.geometry import Geometry
from convjit.kernel import Extra, Kernel


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


def epilogue_variables(kernel: Kernel, out_size: Sequence[int], extents: Sequence[Sequence[int]]) -> dict[str, Any]:
    """What the macros of "metal/epilogue.metal" need.

    The text they write reads variables `sum` (float), `channel`, `pixel` (of the image, row-major), `image` (size_t)
    and, for extras that are broadcast along some axes, out_d, out_h, out_w.

    Args:
        kernel: whose epilogue.
        out_size: spatial extents of the output.
        extents: the spatial extents of each extra, 1 or the output's.
    """
    names = "dhw"[3 - len(out_size) :]
    lines, results = statements(kernel.epilogue, ["sum", *(f"e{i}" for i in range(len(kernel.extras)))], METAL)
    extras = [
        {
            "number": number,
            "type": TYPES[e.dtype],
            "offset": _extra_offset(e, out_size, spatial, names),
            "by_channel": prod(e.shape[:-1]) == 1,
        }
        for number, (e, spatial) in enumerate(zip(kernel.extras, extents, strict=True))
    ]
    return {
        "extras": extras,
        "statements": lines,
        "results": results,
        "result_types": [TYPES[dtype] for dtype in kernel.result_dtypes],
    }


def _extra_offset(extra: Extra, out_size: Sequence[int], spatial: Sequence[int], names: str) -> str:
    """Where in `extra` the element for `channel`, `pixel` and `image` lies."""
    channels = extra.shape[-1]
    if tuple(spatial) == tuple(out_size) and prod(spatial) > 1:
        offset = f"pixel * {channels}" if channels > 1 else "pixel"
    else:
        positions = [f"out_{n}" if s > 1 else None for n, s in zip(names, spatial, strict=True)]
        offset = row_major(positions, spatial, channels)
    if channels > 1:
        offset = f"{offset} + channel" if offset else "channel"
    if extra.shape[0] == 1:
        return offset or "0"
    start = f"image * {prod(extra.shape[1:])}u"
    return f"{start} + size_t({offset})" if offset else start
