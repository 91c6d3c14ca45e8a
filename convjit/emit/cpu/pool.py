"""Kernel and schedule -> the text of "cpu/pool.c"."""

from __future__ import annotations

from convjit.emit.cpu.language import float_literal
from convjit.emit.cpu.source import C_TYPES, Source, extents_in_c
from convjit.emit.render import render
from convjit.kernel import Pool
from convjit.schedule import Schedule

_START = {"max": float("-inf"), "sum": 0.0}

_CHAIN = 64
"""Terms that are added up one after the other."""


def source(kernel: Pool, schedule: Schedule) -> Source:
    """The C text of a pool, as three loops, for any batch and outermost extent."""
    geometry, window = kernel.geometry, kernel.geometry.window
    outermost = 3 - geometry.rank
    in_size, out_size = _three(geometry.in_size), _three(geometry.out_size)
    name = f"{kernel.kind}_pool{geometry.rank}d_{_by('n', *in_size[outermost + 1 :], geometry.in_channels)}"
    variables = {
        "name": name,
        "title": _title(kernel),
        "kind": kernel.kind,
        "dtype": kernel.dtype,
        "c_type": C_TYPES[kernel.dtype],
        "dtypes": {kernel.dtype},
        "functions": set[str](),
        "start": float_literal(_START[kernel.kind]),
        "chain": _CHAIN,
        "parts": kernel.kind == "sum" and kernel.terms > _CHAIN,
        "channels": geometry.in_channels,
        "in_size": [1 if axis == outermost else extent for axis, extent in enumerate(in_size)],
        "in_extents": extents_in_c(in_size, outermost, "call->in_extent"),
        "out_extents": extents_in_c(out_size, outermost, "call->out_extent"),
        "taps": _three(geometry.kernel),
        "stride": _three(window.strides),
        "pad": _three(window.pad_lo, 0),
    }
    return Source(render("cpu/pool.c", **variables, **dict(schedule.choices)), name)


def _title(kernel: Pool) -> str:
    geometry, window = kernel.geometry, kernel.geometry.window
    what = "Greatest elements" if kernel.kind == "max" else "Sums"
    in_words, out_words = (_by("n", *size[1:]) for size in (geometry.in_size, geometry.out_size))
    return (
        f"{what} of windows of {kernel.dtype}: {in_words} x {geometry.in_channels} channels -> {out_words}, "
        f"window {_by(*geometry.kernel)}, stride {_by(*window.strides)}, padding {window.pad_lo}"
    )


def _by(*extents: int | str) -> str:
    return "x".join(map(str, extents))


def _three(extents: tuple[int, ...], missing: int = 1) -> tuple[int, ...]:
    return (missing,) * (3 - len(extents)) + extents
