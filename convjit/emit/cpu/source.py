"""What the texts of all CPU kernels have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from convjit.emit.cpu.language import C, functions_used
from convjit.emit.cpu.simplify import simplify
from convjit.emit.epilogue import statements
from convjit.kernel import Kernel
from convjit.schedule.nest import Nest, nest

C_TYPES = {"f32": "float", "f16": "half", "bf16": "half"}


@dataclass(frozen=True, slots=True)
class Source:
    """The text of a kernel, and the name of the `cj_kernel` that it exports."""

    text: str
    name: str


def name_of(kernel: Kernel) -> str:
    """The name of a kernel, as profilers show it."""
    geometry, loops = kernel.geometry, nest(kernel)
    shape = f"{_any_extent(loops.in_size, loops)}x{geometry.in_channels}_{_by(geometry.kernel)}x{geometry.out_channels}"
    return f"conv{geometry.rank}d_{shape}"


def common_variables(kernel: Kernel, loops: Nest) -> dict[str, Any]:
    """The template variables that describe a kernel and its epilogue."""
    geometry = kernel.geometry
    epilogue = simplify(kernel.epilogue)
    lines, values = statements(epilogue, ["sum", *(f"e{n}" for n in range(len(kernel.extras)))], C)
    types = {instruction.type for instruction in epilogue.instructions}
    return {
        "title": title_of(kernel),
        "name": name_of(kernel),
        "dtype": kernel.dtype,
        "c_type": C_TYPES[kernel.dtype],
        "dtypes": {kernel.dtype, *(e.dtype for e in kernel.extras), *kernel.result_dtypes, *types},
        "functions": functions_used(lines),
        "in_size": [1 if axis == loops.outermost else extent for axis, extent in enumerate(loops.in_size)],
        "out_size": [1 if axis == loops.outermost else extent for axis, extent in enumerate(loops.out_size)],
        "in_extents": extents_in_c(loops.in_size, loops.outermost, "call->in_extent"),
        "out_extents": extents_in_c(loops.out_size, loops.outermost, "call->out_extent"),
        "in_channels": geometry.in_channels,
        "out_channels": geometry.out_channels,
        "extras": [_extra(number, kernel, loops) for number in range(len(kernel.extras))],
        "results": [
            {"dtype": dtype, "c_type": C_TYPES[dtype], "value": value}
            for dtype, value in zip(kernel.result_dtypes, values, strict=True)
        ],
        "statements": lines,
    }


def extents_in_c(sizes: tuple[int, ...], outermost: int, at_run_time: str) -> list[str]:
    """Extents in C: that of the outermost axis is a run-time value, and no address depends on it."""
    return [at_run_time if axis == outermost else str(size) for axis, size in enumerate(sizes)]


def _by(extents: tuple[int, ...]) -> str:
    return "x".join(map(str, extents))


def _any_extent(sizes: tuple[int, ...], loops: Nest) -> str:
    """Extents of the loops; "n" is the outermost one, which is a run-time value."""
    return "x".join(["n", *map(str, sizes[loops.outermost + 1 :])])


def title_of(kernel: Kernel) -> str:
    """What a kernel computes, in words: for the head of its text."""
    geometry, window, loops = kernel.geometry, kernel.geometry.window, nest(kernel)
    in_words, out_words = (_any_extent(sizes, loops) for sizes in (loops.in_size, loops.out_size))
    facts = [
        f"{geometry.rank}D convolution of {kernel.dtype}: {in_words} x {geometry.in_channels} channels",
        f"-> {out_words} x {geometry.out_channels},",
        f"kernel {_by(geometry.kernel)}, stride {_by(window.strides)},",
        f"padding {window.pad_lo} and {window.pad_hi}",
    ]
    if max(window.kernel_dilation) > 1:
        facts.append(f"kernel dilation {_by(window.kernel_dilation)}")
    if window.transposed:
        facts.append(f"input dilation {_by(window.input_dilation)}")
    if window.groups > 1:
        facts.append(f"{window.groups} groups")
    if window.flip:
        facts.append("flipped")
    return " ".join(facts)


def _extra(number: int, kernel: Kernel, loops: Nest) -> dict[str, Any]:
    """How the epilogue reads an extra at output (d, h, w) and channel o: a step of 0 along each broadcast axis."""
    extra, axes = kernel.extras[number], loops.extras[number]
    channels = extra.shape[-1]
    steps = {"d": axes[1] * axes[2] * channels, "h": axes[2] * channels, "w": channels, "o": 1}
    varying = [
        f"{axis} * {steps[axis]}" if steps[axis] > 1 else axis
        for axis, extent in zip("dhwo", (*axes, channels), strict=True)
        if extent > 1
    ]
    address = " + ".join([f"of->extra{number}", *varying])
    load = f"load_{extra.dtype}({address}, count)" if channels > 1 else f"splat_{extra.dtype}({address})"
    return {"number": number, "c_type": C_TYPES[extra.dtype], "load": load, "is_per_channel": axes == (1, 1, 1)}


def rotations(lanes: int) -> list[list[int]]:
    """The orders of lanes that, one after the other, bring every lane of a vector together with all others."""
    return [[(lane + (lanes >> n)) % lanes for lane in range(lanes)] for n in range(1, lanes.bit_length())]
