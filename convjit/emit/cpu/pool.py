"""Kernel and schedule -> the text of "cpu/pool.c"."""

from __future__ import annotations

from typing import Any

from convjit.emit.cpu.language import float_literal
from convjit.emit.cpu.source import C_TYPES, Source, extents_in_c
from convjit.emit.render import render
from convjit.geometry import Geometry
from convjit.kernel import Pool, PoolGradient
from convjit.schedule import Schedule

_START = {"max": float("-inf"), "sum": 0.0}

_CHAIN = 64
"""Terms that are added up one after the other."""


def source(kernel: Pool, schedule: Schedule) -> Source:
    """The C text of a pool, as three loops, for any batch and outermost extent."""
    name = f"{kernel.kind}_pool{name_of(kernel.geometry)}"
    variables = {
        "name": name,
        "title": f"{'Greatest elements' if kernel.kind == 'max' else 'Sums'} of {in_words(kernel)}",
        "kind": kernel.kind,
        "start": float_literal(_START[kernel.kind]),
        "chain": _CHAIN,
        "parts": kernel.kind == "sum" and kernel.terms > _CHAIN,
    }
    return Source(render("cpu/pool.c", **variables, **windows(kernel), **dict(schedule.choices)), name)


def windows(kernel: Pool | PoolGradient) -> dict[str, Any]:
    """Of a template: what "windows.h" and vectors need."""
    geometry, window = kernel.geometry, kernel.geometry.window
    outermost = 3 - geometry.rank
    in_size, out_size = _three(geometry.in_size), _three(geometry.out_size)
    return {
        "dtype": kernel.dtype,
        "c_type": C_TYPES[kernel.dtype],
        "dtypes": {kernel.dtype},
        "functions": set[str](),
        "channels": geometry.in_channels,
        "in_size": [1 if axis == outermost else extent for axis, extent in enumerate(in_size)],
        "in_extents": extents_in_c(in_size, outermost, "call->in_extent"),
        "out_extents": extents_in_c(out_size, outermost, "call->out_extent"),
        "taps": _three(geometry.kernel),
        "stride": _three(window.strides),
        "pad": _three(window.pad_lo, 0),
    }


def name_of(geometry: Geometry) -> str:
    """For the end of a kernel's name: the rank, and what its text holds of the input's shape."""
    return f"{geometry.rank}d_{_by('n', *geometry.in_size[1:], geometry.in_channels)}"


def in_words(kernel: Pool | PoolGradient) -> str:
    """For a kernel's title: its windows."""
    geometry, window = kernel.geometry, kernel.geometry.window
    before, behind = (_by("n", *size[1:]) for size in (geometry.in_size, geometry.out_size))
    return (
        f"windows of {kernel.dtype}: {before} x {geometry.in_channels} channels -> {behind}, "
        f"window {_by(*geometry.kernel)}, stride {_by(*window.strides)}, padding {window.pad_lo}"
    )


def _by(*extents: int | str) -> str:
    return "x".join(map(str, extents))


def _three(extents: tuple[int, ...], missing: int = 1) -> tuple[int, ...]:
    return (missing,) * (3 - len(extents)) + extents
