"""A convolution by `metal/winograd`: transform tiles of the input, multiply, transform the products to the output.

Three kernels, with two arrays between them, in device memory:

    transformed  (blocks of tiles, positions, terms / 8, tiles of a block, 8)  in the storage type
    products     (tiles, positions, output channels)                           in float32

so that the second kernel, a product of matrices at each position, reads blocks that lie in one piece, and the others
have their lanes along channels. A kernel that multiplied and transformed at once would spare the products. But with the
sums of all positions in registers it has room for 8 tiles by 16 channels (F4) or 16 by 32 (F2), and so would read
transformed weights and inputs more often. Device bytes of a layer in float32: ours as the simulator counts them, those
of that kernel as they follow from its tile, and those of `metal/gemm.metal`, which issues 3.5 times the matrix
operations of F4 and 2.25 times those of F2:

    56x56, 64 -> 64 channels     F4 12.9 MB, at once 27     F2 20.4 MB, at once 26     gemm 11.5 MB
    14x14, 256 -> 256            F4 13.0 MB, at once 30     F2 11.4 MB, at once 25     gemm 12.9 MB

Padding is in the reading of tiles. With float16, transformed inputs are scaled down, so that they never overflow where
the inputs do not.
"""

from __future__ import annotations

from math import prod
from typing import Any

from convjit.bilinear import TAPS
from convjit.emit.metal.dispatch import Dispatch, extras_of, padded, results_of, write_text
from convjit.emit.metal.indexing import row_major, shifted
from convjit.emit.metal.language import METAL
from convjit.emit.metal.variables import epilogue_variables, geometry_variables
from convjit.emit.straight_line import Arithmetic, product
from convjit.kernel import Kernel
from convjit.schedule import Schedule
from convjit.schedule.metal.tile import FRAGMENT
from convjit.schedule.metal.winograd import Winograd

THREADS = 128
"""Of a threadgroup of the transforms."""

_ARITHMETIC = Arithmetic(lambda value: METAL.constant(value, "f32"), "metal::fma({0}, {1}, {2})")

_WORDS = ("the depth", "the height", "the width")


def dispatches(kernel: Kernel, schedule: Schedule) -> tuple[Dispatch, ...]:
    """The three kernels."""
    plan = Winograd.of(kernel.geometry, schedule)
    first = 2 + len(kernel.extras)
    return (_input(kernel, plan), _multiply(kernel, plan, first), _output(kernel, plan, first + 1))


def _input(kernel: Kernel, plan: Winograd) -> Dispatch:
    pairs = _pairs(plan)
    lanes, rows = _threadgroup(plan.terms // (1 + pairs), plan.block_m)
    while plan.block_m % rows:
        lanes, rows = lanes * 2, rows // 2
    channels, sizes = plan.geometry.in_channels, plan.in_size
    exists = [f"row < input_shape[0] * {prod(plan.tile_counts)}"]
    if plan.padded_channels > channels:
        exists.append(f"channel < {channels}")
    untransformed = _untransformed_inputs(plan)
    exists += [test for i, _ in untransformed for test in _inside(plan, i)]
    names = {i: f"in_{'dhw'[i]}" for i in range(3) if sizes[i] > 1}
    offset = row_major([names.get(i) for i in range(3)], sizes, channels)
    variables = {
        **_shared_variables(kernel, plan),
        "axes": _transforms(plan, inputs=True),
        "surplus_lanes": plan.terms // (1 + pairs) % lanes != 0,
        "summed_taps": prod(plan.summed_taps),
        "untransformed": [("dhw"[i], position) for i, position in untransformed],
        "exists": " && ".join(exists),
        "inside": " && ".join(["exists", *(test for i in _transformed_axes(plan) for test in _inside(plan, i))]),
        "input_offset": f"{offset} + channel" if offset else "channel",
        "place": f"k / {FRAGMENT} * {plan.block_m * FRAGMENT} + row % {plan.block_m} * {FRAGMENT} + k % {FRAGMENT}",
        "scale": _factor(kernel, plan, inverse=True),
    }
    text = write_text(
        "metal/winograd_input.metal", variables, [("input", kernel.dtype)], [("transformed", kernel.dtype)]
    )
    shape = (plan.blocks_m, plan.positions, plan.terms * plan.block_m)
    grid = (padded(plan.terms // (1 + pairs), lanes), plan.blocks_m * plan.block_m, 1)
    return Dispatch(text, (0,), ((shape, kernel.dtype),), grid, (lanes, rows, 1))


def _multiply(kernel: Kernel, plan: Winograd, transformed: int) -> Dispatch:
    """Multiplies value number `transformed` by the weights."""
    variables = {
        **_shared_variables(kernel, plan),
        "type_of_4": {"f32": "float4", "f16": "half4", "bf16": "bfloat4"}[kernel.dtype],
        "simdgroups_m": 1,
        "simdgroups_n": plan.simdgroups,
        "tiles_m": plan.tiles_m,
        "tiles_n": plan.tiles_n,
        "block_n": plan.block_n,
        "step": plan.step,
        "threads": plan.threads,
    }
    inputs = [("transformed", kernel.dtype), ("weight", kernel.dtype)]
    text = write_text("metal/winograd_gemm.metal", variables, inputs, [("products", "f32")])
    shape = (plan.blocks_m * plan.block_m, plan.positions, plan.padded_filters)
    grid = (plan.blocks_n * plan.threads, plan.blocks_m, plan.positions)
    return Dispatch(text, (transformed, 1), ((shape, "f32"),), grid, (plan.threads, 1, 1))


def _output(kernel: Kernel, plan: Winograd, products: int) -> Dispatch:
    """Transforms value number `products`, and does the epilogue."""
    g, pairs = plan.geometry, _pairs(plan)
    tiles, width = prod(plan.tile_counts), -(-g.out_channels // (1 + pairs))
    lanes, rows = _threadgroup(width, tiles)
    surplus = [f"first_channel >= {g.out_channels}"] if width % lanes else []
    if tiles % rows:
        surplus.append(f"tile >= {tiles}")
    outside = [i for i in _transformed_axes(plan) if plan.out_size[i] % plan.tiles[i]]
    names = {i: f"out_{'dhw'[i]}" for i in range(3) if plan.out_size[i] > 1}
    variables = {
        **_shared_variables(kernel, plan),
        "axes": _transforms(plan, inputs=False),
        "surplus": " || ".join(surplus),
        "untransformed": [("dhw"[i], place) for i, place in enumerate(_places(plan)) if place and plan.tiles[i] == 1],
        "outside": " || ".join(f"{names[i]} >= {plan.out_size[i]}" for i in outside),
        "pixel": row_major([names.get(i) for i in range(3)], plan.out_size) or "0",
        "unscale": _factor(kernel, plan, inverse=False),
        **epilogue_variables(
            kernel.any_batch(), plan.out_size, [(1,) * (3 - g.rank) + e.shape[1:-1] for e in kernel.extras]
        ),
    }
    inputs = [("products", "f32"), *extras_of(kernel)]
    text = write_text("metal/winograd_output.metal", variables, inputs, results_of(kernel))
    outputs = tuple((g.out_shape, dtype) for dtype in kernel.result_dtypes)
    grid = (padded(width, lanes), padded(tiles, rows), g.batch)
    return Dispatch(text, (products, *range(2, 2 + len(kernel.extras))), outputs, grid, (lanes, rows, 1))


def _shared_variables(kernel: Kernel, plan: Winograd) -> dict[str, Any]:
    g, pairs, numbers = plan.geometry, _pairs(plan), _transformed_axes(plan)
    position = row_major([f"i_{'dhw'[i]}" for i in numbers], [plan.algorithms[i].positions for i in numbers])
    return {
        **geometry_variables(kernel),
        "name": f"F({'x'.join(str(plan.tiles[i]) for i in numbers)}, {'x'.join(str(TAPS) for _ in numbers)})",
        "pairs": pairs,
        "value": "float2" if pairs else "float",
        "position": position,
        "element": f"x[{position}]",
        "positions": plan.positions,
        "terms": plan.terms,
        "tiles": prod(plan.tile_counts),
        "block_m": plan.block_m,
        "channels": g.in_channels,
        "padded_channels": plan.padded_channels,
        "padded_filters": plan.padded_filters,
    }


def _pairs(plan: Winograd) -> bool:
    """Does a thread transform two channels? Tiles of F2 are small enough for that."""
    return max(plan.tiles) == 2


def _transformed_axes(plan: Winograd) -> list[int]:
    return [i for i in range(3) if plan.tiles[i] > 1]


def _transforms(plan: Winograd, *, inputs: bool) -> list[dict[str, Any]]:
    """The axes that are transformed: where a tile begins, and the code for one row of a tile along them."""
    axes: list[dict[str, Any]] = []
    numbers = _transformed_axes(plan)
    names = ["dhw"[i] for i in numbers]
    extents = [plan.algorithms[i].positions for i in numbers]
    strides = [prod(extents[n + 1 :]) for n in range(len(numbers))]
    for n, i in enumerate(numbers):
        algorithm = plan.algorithms[i]
        matrix = algorithm.inputs if inputs else algorithm.outputs
        others = [m for m in range(len(numbers)) if m != n]
        rest = "".join(f" + i_{names[m]}" + (f" * {strides[m]}" if strides[m] > 1 else "") for m in others)
        elements = [f"x[{j * strides[n]}{rest}]" for j in range(algorithm.positions)]
        code = product(matrix, elements, _ARITHMETIC)
        offset = plan.axes[i].offset if inputs else 0
        axes.append(
            {
                "name": names[n],
                "spelled": _WORDS[i],
                "first": shifted(f"{_places(plan)[i] or '0'} * {algorithm.tile}", offset),
                "tile": algorithm.tile,
                "positions": algorithm.positions,
                "other": "".join(f"i_{names[m]}" for m in others),
                "others": prod(extents[m] for m in others),
                "lines": code.lines,
                "results": list(zip(elements[: len(matrix)], code.results, strict=True)),
            }
        )
        extents[n] = len(matrix)  # what the next axis has to transform
    return axes


def _places(plan: Winograd) -> list[str]:
    """The tile's number along each axis, empty where there is one only."""
    counts = plan.tile_counts
    places: list[str] = []
    for i in range(3):
        inner, outer = prod(counts[i + 1 :]), prod(counts[:i])
        text = f"tile / {inner}" if inner > 1 else "tile"
        places.append("" if counts[i] == 1 else f"{text} % {counts[i]}" if outer > 1 else text)
    return places


def _untransformed_inputs(plan: Winograd) -> list[tuple[int, str]]:
    """Where the other axes read: (axis, position), without those of one element."""
    positions: list[tuple[int, str]] = []
    taps, places = plan.summed_taps, _places(plan)
    for i, axis in enumerate(plan.axes):
        if plan.tiles[i] > 1 or (plan.in_size[i] == plan.out_size[i] == taps[i] == 1 and axis.offset == 0):
            continue
        parts = [f"{places[i]} * {axis.stride}" if axis.stride > 1 else places[i]] if places[i] else []
        if taps[i] > 1:
            inner, outer = prod(taps[i + 1 :]) * plan.padded_channels, prod(taps[:i])
            tap = f"k / {inner}" + (f" % {taps[i]}" if outer > 1 else "")
            parts.append(f"{tap} * {axis.step}" if axis.step > 1 else tap)
        positions.append((i, shifted(" + ".join(parts) or "0", axis.offset)))
    return positions


def _inside(plan: Winograd, i: int) -> list[str]:
    """The tests that a position along an axis is in the input, where it might not be."""
    axis, name = plan.axes[i], f"in_{'dhw'[i]}"
    span = plan.algorithms[i].positions - 1 if plan.tiles[i] > 1 else (len(axis.taps) - 1) * axis.step
    last = axis.offset + (plan.tile_counts[i] - 1) * plan.tiles[i] * axis.stride + span
    below = [f"{name} >= 0"] if axis.offset < 0 else []
    return [*below, *([f"{name} < {plan.in_size[i]}"] if last >= plan.in_size[i] else [])]


def _factor(kernel: Kernel, plan: Winograd, *, inverse: bool) -> str:
    """What float16 transforms are scaled by: the rows of B^T of F(2, 3) add two inputs."""
    if kernel.dtype != "f16":
        return ""
    factor = 2.0 ** len(_transformed_axes(plan))
    return f"{METAL.constant(1 / factor if inverse else factor, 'f32')} * "


def _threadgroup(width: int, height: int) -> tuple[int, int]:
    """Lanes along channels and rows of a threadgroup: 32 lanes, but not many more than there is work for."""
    lanes = min(32, _power_of_two(width))
    rows = min(THREADS // lanes, _power_of_two(height))
    return THREADS // rows, rows


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()
