"""The second kernel of a convolution whose input channels were split: adds the partial sums, does the epilogue."""

from __future__ import annotations

from math import prod

from convjit.emit.metal.dispatch import Dispatch, extras_of, padded, results_of, write_text
from convjit.emit.metal.indexing import epilogue_variables, index_type, pixel_positions
from convjit.kernel import Kernel

LANES, ROWS = 32, 4


def dispatch(kernel: Kernel, parts: int) -> Dispatch:
    """Reads the output of the dispatch before it: (batch, parts, *spatial, out_channels) in f32."""
    geometry = kernel.geometry
    pixels = prod(geometry.out_size)
    one = kernel.any_batch()
    epilogue = epilogue_variables(one, geometry.out_size, [e.shape[1:-1] for e in one.extras])
    variables = {
        "title": geometry.in_words(),
        "index": index_type(pixels * geometry.out_channels),
        "parts": parts,
        "pixels": pixels,
        "out_channels": geometry.out_channels,
        "out_positions": [
            (name, position)
            for name, position in pixel_positions(geometry.out_size, "dhw"[3 - geometry.rank :])
            if any(f"out_{name}" in extra["offset"] for extra in epilogue["extras"])
        ],
        **epilogue,
    }
    text = write_text("metal/sum_parts.metal", variables, [("partial", "f32"), *extras_of(kernel)], results_of(kernel))
    inputs = (2 + len(kernel.extras), *range(2, 2 + len(kernel.extras)))
    outputs = tuple((geometry.out_shape, dtype) for dtype in kernel.result_dtypes)
    grid = (padded(geometry.out_channels, LANES), padded(pixels, ROWS), geometry.batch)
    return Dispatch(text, inputs, outputs, grid, (LANES, ROWS, 1))
