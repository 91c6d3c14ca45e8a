"""Kernel and schedule -> Metal text: what `mx.fast.metal_kernel` wants."""

from __future__ import annotations

import math
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from convjit.cache import content_key
from convjit.emit.epilogue import Language, statements
from convjit.emit.render import render
from convjit.geometry import Geometry
from convjit.kernel import Extra, Kernel
from convjit.schedule import Schedule

TYPES = {"f32": "float", "f16": "half", "bf16": "bfloat16_t"}

MAX_CHAIN = 1024
"""The most products that are summed one after the other in fp32; longer sums are made of partial ones."""


def _constant(value: float | bool, type_: str) -> str:
    if type_ == "i1":
        return "true" if value else "false"
    if math.isnan(value):
        return "NAN"
    with np.errstate(over="ignore"):
        rounded = np.float32(value)
    if np.isinf(rounded):
        return "INFINITY" if rounded > 0 else "-INFINITY"
    return f"{rounded}f"


_COMPARISONS = {
    "false": "false",
    "oeq": "{0} == {1}",
    "ogt": "{0} > {1}",
    "oge": "{0} >= {1}",
    "olt": "{0} < {1}",
    "ole": "{0} <= {1}",
    "one": "{0} < {1} || {0} > {1}",
    "ord": "!(metal::isnan({0}) || metal::isnan({1}))",
    "ueq": "!({0} < {1} || {0} > {1})",
    "ugt": "!({0} <= {1})",
    "uge": "!({0} < {1})",
    "ult": "!({0} >= {1})",
    "ule": "!({0} > {1})",
    "une": "{0} != {1}",
    "uno": "metal::isnan({0}) || metal::isnan({1})",
    "true": "true",
}
_PRECISE = ("exp", "log", "log2", "log10", "sqrt", "rsqrt", "sin", "cos", "tan", "tanh")
_OWN_FUNCTIONS = ("erf", "expm1", "log1p")

METAL = Language(
    types={**TYPES, "i1": "bool"},
    ops={
        "arith.addf": "{0} + {1}",
        "arith.subf": "{0} - {1}",
        "arith.mulf": "{0} * {1}",
        "arith.divf": "{0} / {1}",
        "arith.negf": "-{0}",
        # As MLX's Maximum and Minimum: a NaN of either side wins, of equals the second does.
        "arith.maximumf": "metal::isnan({0}) ? {0} : ({0} > {1} ? {0} : {1})",
        "arith.minimumf": "metal::isnan({0}) ? {0} : ({0} < {1} ? {0} : {1})",
        "arith.select": "{0} ? {1} : {2}",
        "arith.andi": "{0} && {1}",
        "arith.ori": "{0} || {1}",
        "arith.xori": "{0} != {1}",
        "arith.uitofp": "{0} ? 1.0f : 0.0f",
        "arith.extf.f16": "float({0})",
        "arith.extf.bf16": "float({0})",
        "arith.truncf.f16": "half({0})",
        "arith.truncf.bf16": "bfloat16_t({0})",
        "math.absf": "metal::fabs({0})",
        "math.ceil": "metal::ceil({0})",
        "math.floor": "metal::floor({0})",
        "math.roundeven": "metal::rint({0})",
        "math.powf": "metal::precise::pow({0}, {1})",
        **{f"arith.cmpf.{predicate}": text for predicate, text in _COMPARISONS.items()},
        **{f"math.{name}": f"metal::precise::{name}({{0}})" for name in _PRECISE},
        **{f"math.{name}": f"cj_{name}({{0}})" for name in _OWN_FUNCTIONS},
    },
    constant=_constant,
)


@dataclass(frozen=True, slots=True)
class MetalText:
    """A kernel as `mx.fast.metal_kernel` takes it. It does not depend on the batch.

    Attributes:
        name: of the kernel, with a digest of its text.
        header: functions it needs.
        body: what it does. MLX writes the signature.
        inputs: names of the arguments it reads: input, packed weight, extras.
        outputs: names of the arguments it writes.
    """

    name: str
    header: str
    body: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def metal_text(kernel: Kernel, schedule: Schedule) -> MetalText:
    """The text of `kernel`, by the template that `schedule` names."""
    body = render(schedule.template, **_direct_variables(kernel.any_batch(), schedule)).strip("\n")
    header = render("metal/functions.metal", used=[f"cj_{f}" for f in _OWN_FUNCTIONS if f"cj_{f}(" in body])
    inputs = ("input", "weight", *(f"extra{i}" for i in range(len(kernel.extras))))
    outputs = tuple(f"output{i}" for i in range(len(kernel.result_dtypes)))
    types = (kernel.dtype, *(e.dtype for e in kernel.extras), *kernel.result_dtypes)
    return MetalText(f"cj_direct_{content_key(header, body, *types)[:12]}", header, body, inputs, outputs)


def launch_size(geometry: Geometry, schedule: Schedule) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """The grid, in threads, and the threadgroup, which divides it: channel blocks, pixels, images."""
    choices = _sizes(schedule)
    blocks = geometry.out_channels // choices["channels"]
    pixels = prod(geometry.out_size)
    lanes, rows = choices["lanes"], choices["pixels"]
    return (-(-blocks // lanes) * lanes, -(-pixels // rows) * rows, geometry.batch), (lanes, rows, 1)


def _sizes(schedule: Schedule) -> dict[str, int]:
    return {name: int(value) for name, value in schedule.choices}


def _direct_variables(kernel: Kernel, schedule: Schedule) -> dict[str, Any]:
    """The variables of `metal/direct.metal`: numbers, and the index expressions that depend on the geometry."""
    g = kernel.geometry
    groups = g.window.groups
    group_channels = g.in_channels // groups
    pixels = prod(g.out_size)
    largest = max(prod(g.in_size) * g.in_channels, prod(g.weight_shape), pixels * g.out_channels, *g.padded_size)
    index = "int" if largest < 2**31 else "long"
    channels = _sizes(schedule)["channels"]
    axes = [_axis(g, i) for i in range(g.rank)]
    lines, results = statements(kernel.epilogue, ["sum", *(f"e{i}" for i in range(len(kernel.extras)))], METAL)
    terms = prod(g.kernel) * group_channels
    first_channel = f" + channel / {g.out_channels // groups} * {group_channels}" if groups > 1 else ""
    tap = _row_major([f"k_{a['name']}" if a["kernel"] > 1 else None for a in axes], g.kernel)
    return {
        "title": _title(g),
        "index": index,
        "axes": axes,
        "out_positions": _out_positions(g),
        "pixels": pixels,
        "image_elements": prod(g.in_size) * g.in_channels,
        "out_channels": g.out_channels,
        "group_channels": group_channels,
        "channels": channels,
        "zeros": ", ".join(["0.0f"] * channels),
        "chain": min(MAX_CHAIN, group_channels) if terms > MAX_CHAIN else 0,
        "input_offset": _row_major([f"in_{a['name']}" for a in axes], g.in_size, g.in_channels) + first_channel,
        "weight_offset": f"{tap} * {group_channels * g.out_channels} + channel" if tap else "channel",
        "extras": [{"type": TYPES[e.dtype], "offset": _extra_offset(e, g)} for e in kernel.extras],
        "statements": lines,
        "results": results,
    }


def _axis(g: Geometry, i: int) -> dict[str, Any]:
    """One spatial axis: where a tap reads (`position`) and when that is outside of the input (`outside`).

    The position counts elements of the dilated input, as `Window` does.
    """
    w = g.window
    name = _axis_names(g.rank)[i]
    spread = w.input_dilation[i]
    dilated_size = (g.in_size[i] - 1) * spread + 1
    terms: list[str] = []
    if g.out_size[i] > 1:
        terms.append(f"out_{name}" + (f" * {w.strides[i]}" if w.strides[i] > 1 else ""))
    if g.kernel[i] > 1:
        terms.append(f"k_{name}" + (f" * {w.kernel_dilation[i]}" if w.kernel_dilation[i] > 1 else ""))
    position = " + ".join(terms) or "0"
    if w.pad_lo[i]:
        position += f" - {w.pad_lo[i]}" if w.pad_lo[i] > 0 else f" + {-w.pad_lo[i]}"
    last = (g.out_size[i] - 1) * w.strides[i] + (g.kernel[i] - 1) * w.kernel_dilation[i] - w.pad_lo[i]
    variable = f"dilated_{name}" if spread > 1 else f"in_{name}"
    tests = [
        (f"{variable} < 0", w.pad_lo[i] > 0),
        (f"{variable} >= {dilated_size}", last >= dilated_size),
        (f"{variable} % {spread} != 0", spread > 1),
    ]
    outside = " || ".join(test for test, possible in tests if possible)
    return {
        "name": name,
        "kernel": g.kernel[i],
        "input_dilation": spread,
        "position": position,
        "outside": outside,
        "loop": g.kernel[i] > 1 or bool(outside),
    }


def _axis_names(rank: int) -> str:
    return "dhw"[3 - rank :]


def _out_positions(g: Geometry) -> list[tuple[str, str]]:
    """How the axes of the output are found in the number of a pixel."""
    positions: list[tuple[str, str]] = []
    for i, name in enumerate(_axis_names(g.rank)):
        inner, outer = prod(g.out_size[i + 1 :]), prod(g.out_size[:i])
        if g.out_size[i] > 1:
            division = f" / {inner}" if inner > 1 else ""
            remainder = f" % {g.out_size[i]}" if outer > 1 else ""
            positions.append((name, f"pixel{division}{remainder}"))
    return positions


def _row_major(positions: list[str | None], sizes: tuple[int, ...], scale: int = 1) -> str:
    """The offset of an element; None is an axis of extent 1. Empty if all are."""
    offset = ""
    for position, size in zip(positions, sizes, strict=True):
        if position is not None:
            offset = f"({offset} * {size} + {position})" if offset else position
    return f"{offset} * {scale}" if offset and scale > 1 else offset


def _extra_offset(extra: Extra, g: Geometry) -> str:
    """Where in `extra` the element for `channel + j` of this pixel and image lies."""
    *spatial, channels = extra.shape[1:]
    names: list[str | None] = [f"out_{n}" if s > 1 else None for n, s in zip(_axis_names(g.rank), spatial, strict=True)]
    whole = tuple(spatial) == g.out_size and prod(spatial) > 1
    offset = _row_major(["pixel"] if whole else names, (1,) if whole else tuple(spatial), channels)
    if channels > 1:
        offset = f"{offset} + channel + j" if offset else "channel + j"
    if extra.shape[0] == 1:
        return offset or "0"
    start = f"image * {prod(extra.shape[1:])}u"
    return f"{start} + size_t({offset})" if offset else start


def _title(g: Geometry) -> str:
    def by(sizes: tuple[int, ...]) -> str:
        return "x".join(str(s) for s in sizes)

    filters = by((*g.kernel, g.in_channels // g.window.groups))
    return (
        f"Input {by((*g.in_size, g.in_channels))}, {g.out_channels} filters of {filters}, "
        f"output {by((*g.out_size, g.out_channels))}."
    )
