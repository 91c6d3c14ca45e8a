"""The work of the implicit GEMMs: `metal/gemm.metal`, `metal/stem.metal` and `metal/gather.metal`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import ceil, prod

from convjit.kernel import DTYPES, Kernel, identity_epilogue
from convjit.schedule import Schedule
from convjit.schedule.metal.tile import FRAGMENT, Tiling
from convjit.schedule.metal.work.launch import Work, array_bytes, extra_bytes, inside, result_bytes
from convjit.schedule.phases import AxisPhase

_SUM_THREADS = 128
"""Of the kernel that adds up parts."""


def gemm(kernel: Kernel, schedule: Schedule) -> tuple[Work, ...]:
    """The input of a box is read once for each block of channels, with halo or once a tap."""
    tiling = Tiling.of(kernel, schedule)
    parts = tiling.tile.parts
    if parts == 1:
        return (_staged(kernel, tiling),)
    bare = replace(kernel, extras=(), epilogue=identity_epilogue("f32"), result_dtypes=("f32",))
    outputs = prod(kernel.geometry.out_shape)
    partial = parts * result_bytes(bare)
    sums = replace(_staged(bare, tiling), bytes_written=partial)
    add = Work(
        bytes_read=partial + extra_bytes(kernel, outputs, outputs),
        bytes_written=result_bytes(kernel),
        bytes_once=partial + result_bytes(kernel),
        multiply_adds=0,
        on_matrices=False,
        threadgroups=ceil(outputs / _SUM_THREADS),
        threads=_SUM_THREADS,
    )
    return replace(sums, bytes_once=sums.bytes_once + partial), add


def stem(kernel: Kernel, schedule: Schedule) -> tuple[Work, ...]:
    """The input of a box is read once for each block of channels."""
    return (_staged(kernel, Tiling.of(kernel, schedule)),)


def gather(kernel: Kernel, schedule: Schedule) -> tuple[Work, ...]:
    """Each simdgroup reads the input of its pixels once for each tap. Rows behind the box read those of its end."""
    tiling = Tiling.of(kernel, schedule)
    tile, g = tiling.tile, tiling.kernel.geometry
    pixels = prod(_gathered(tiling, i) for i in range(3)) * tile.block_m // prod(tile.box)
    elements = pixels * tiling.group_channels * tiling.blocks_n * g.window.groups * g.batch * tile.simdgroups_n
    return (_work(kernel, tiling, elements),)


def _staged(kernel: Kernel, tiling: Tiling) -> Work:
    g = tiling.kernel.geometry
    pixels = prod(_filled(tiling, i) for i in range(3))
    return _work(kernel, tiling, pixels * tiling.group_channels * tiling.blocks_n * g.window.groups * g.batch)


def _work(kernel: Kernel, tiling: Tiling, input_elements: int) -> Work:
    tile, g, size = tiling.tile, kernel.geometry, DTYPES[kernel.dtype]
    # A simdgroup reads each matrix of weights once, for all the matrices of pixels that it is multiplied with.
    weight_elements = tiling.issued // (FRAGMENT * tile.tiles_m)
    boxes = sum(
        prod(ceil(n / width) for n, width in zip(tiling.loops.outputs(phase), tile.box, strict=True))
        for phase in tiling.loops.phases
    )
    with_outputs = boxes * tiling.blocks_n * g.window.groups * tiling.image_blocks
    held = with_outputs * tile.threads * tile.tiles_n * 2
    in_pairs = g.batch * prod(g.out_size) * g.window.groups * 2 * ceil(tiling.group_filters / 2)
    return Work(
        bytes_read=(input_elements + weight_elements) * size + extra_bytes(kernel, in_pairs, held),
        bytes_written=result_bytes(kernel),
        bytes_once=array_bytes(kernel),
        multiply_adds=tiling.issued,
        on_matrices=True,
        threadgroups=with_outputs * tile.parts,
        threads=tile.threads,
    )


def _filled(tiling: Tiling, i: int) -> int:
    """Positions of the input that all boxes along axis i bring into threadgroup memory."""
    axis = tiling.axes[i]
    return sum(
        inside(start + shift, axis.spacing, axis.extent, tiling.loops.in_size[i])
        for phase, start in _boxes(tiling, i)
        for shift in ([0] if axis.halo else [tap * axis.step for tap in range(len(phase.taps))])
    )


def _gathered(tiling: Tiling, i: int) -> int:
    """Positions that the taps of all outputs of all boxes along axis i read."""
    axis = tiling.axes[i]
    return sum(
        inside(start + tap * axis.step, axis.stride, tiling.tile.box[i], tiling.loops.in_size[i])
        for phase, start in _boxes(tiling, i)
        for tap in range(len(phase.taps))
    )


def _boxes(tiling: Tiling, i: int) -> Iterator[tuple[AxisPhase, int]]:
    """The boxes along axis i that have outputs: their phase, and where the first tap of their first output reads."""
    for phase in tiling.loops.axes[i]:
        for first in range(0, phase.outputs(tiling.loops.out_size[i]), tiling.tile.box[i]):
            yield phase, first * tiling.axes[i].stride + phase.offset
