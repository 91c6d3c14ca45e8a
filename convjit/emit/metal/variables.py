"""What templates of convolutions share: the names of the geometry's numbers, and epilogues."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from convjit.emit.epilogue import statements
from convjit.emit.metal.indexing import index_of, row_major
from convjit.emit.metal.language import METAL, TYPES
from convjit.kernel import Extra, Kernel


def geometry_variables(kernel: Kernel) -> dict[str, Any]:
    """What the templates of all convolutions call the numbers of their geometry."""
    g = kernel.geometry
    return {
        "title": g.in_words(),
        "type": TYPES[kernel.dtype],
        "index": index_of(g),
        "in_channels": g.in_channels,
        "image_elements": prod(g.in_size) * g.in_channels,
        "out_channels": g.out_channels,
        "pixels": prod(g.out_size),
    }


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
