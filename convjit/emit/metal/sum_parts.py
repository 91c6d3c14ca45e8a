"""The second kernel where the terms of sums were split: adds the partial sums, does the epilogue."""

from __future__ import annotations

from math import prod

from convjit.emit.metal.dispatch import Dispatch, extras_of, padded, results_of, write_text
from convjit.emit.metal.indexing import index_type, pixel_positions
from convjit.emit.metal.variables import epilogue_variables
from convjit.kernel import Kernel

LANES, ROWS = 32, 4


def dispatch(kernel: Kernel, parts: int) -> Dispatch:
    """Reads the output of the dispatch before it: (batch, parts, *spatial, out_channels) in f32; of a weight gradient
    (parts, out_channels, taps * channels)."""
    geometry, is_gradient = kernel.geometry, kernel.operation == "weight_gradient"
    batch, *out_size, channels = geometry.out_shape
    if is_gradient:
        batch, out_size, channels = 1, [geometry.out_channels], prod(geometry.weight_shape[1:])
    pixels = prod(out_size)
    one = kernel.any_batch()
    epilogue = epilogue_variables(one, out_size, [e.shape[1:-1] for e in one.extras])
    variables = {
        "title": ("Weight gradient, " if is_gradient else "Convolution ") + geometry.in_words(),
        "index": index_type(pixels * channels),
        "parts": parts,
        "pixels": pixels,
        "out_channels": channels,
        "out_positions": [
            (name, position)
            for name, position in pixel_positions(out_size, "dhw"[3 - len(out_size) :])
            if any(f"out_{name}" in extra["offset"] for extra in epilogue["extras"])
        ],
        **epilogue,
    }
    text = write_text("metal/sum_parts.metal", variables, [("partial", "f32"), *extras_of(kernel)], results_of(kernel))
    inputs = (2 + len(kernel.extras), *range(2, 2 + len(kernel.extras)))
    outputs = tuple(zip(kernel.result_shapes, kernel.result_dtypes, strict=True))
    grid = (padded(channels, LANES), padded(pixels, ROWS), batch)
    return Dispatch(text, inputs, outputs, grid, (LANES, ROWS, 1))
