"""Packed weights against NumPy."""

from __future__ import annotations

from fractions import Fraction

import mlx.core as mx
import numpy as np
import numpy.typing as npt
import pytest

from convjit.backends.cpu import CpuBackend
from convjit.backends.cpu import packing as module
from convjit.bilinear import algorithm
from convjit.emit.cpu.packing import Packing
from convjit.geometry import plain_window
from convjit.schedule import Schedule

WIDER = ((Fraction(1), Fraction(0)), (Fraction(1, 3), Fraction(-2)), (Fraction(0), Fraction(1)))


def packed(weight: npt.NDArray[np.float32], order: Packing) -> npt.NDArray[np.float64]:
    exact = weight.astype(np.float64)
    for axis, matrix in order.transforms:
        exact = np.moveaxis(np.tensordot(np.array(matrix, np.float64), exact, (1, axis)), 0, axis)
    by_tap = exact.reshape(order.groups, len(weight) // order.groups, -1, weight.shape[-1])
    blocks: list[npt.NDArray[np.float64]] = []
    for taps in order.taps:
        for group in by_tap[:, :, list(taps)]:
            for o in range(0, len(group), order.block_width):
                block = group[o : o + order.block_width].transpose(1, 2, 0)
                last = o + order.block_width >= len(group)
                width = order.last_width if last else order.block_width
                blocks.append(np.pad(block, ((0, 0), (0, 0), (0, width - block.shape[2]))).ravel())
    return np.concatenate(blocks)


@pytest.mark.parametrize(
    ("shape", "taps", "groups", "block", "last", "transforms"),
    [
        ((32, 3, 3, 16), (tuple(range(9)),), 1, 32, 32, ()),
        ((37, 3, 5, 18), ((0, 3, 7), (14,), (), (2, 1)), 1, 16, 8, ()),
        ((18, 2, 33), ((1, 0),), 3, 4, 4, ()),
        ((48, 9, 1), (tuple(range(9)),), 1, 48, 48, ()),
        ((70, 3, 3, 19), (tuple(range(18)),), 1, 32, 16, ((1, algorithm(4).weights),)),
        ((20, 5, 3, 8), (tuple(range(20)), (7, 3)), 2, 8, 2, ((2, algorithm(2).weights),)),
        ((20, 2, 2, 4, 7), (tuple(range(24)),), 1, 16, 4, ((2, WIDER),)),
        ((33, 3, 3, 20), (tuple(range(36)),), 1, 32, 16, ((1, algorithm(4).weights), (2, algorithm(4).weights))),
    ],
)
def test_packing(
    backend: CpuBackend,
    monkeypatch: pytest.MonkeyPatch,
    shape: tuple[int, ...],
    taps: tuple[tuple[int, ...], ...],
    groups: int,
    block: int,
    last: int,
    transforms: tuple[tuple[int, tuple[tuple[Fraction, ...], ...]], ...],
):
    weight = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    group_width = (shape[0] // groups - 1) // block * block + last
    floats = sum(map(len, taps)) * groups * group_width * shape[-1]
    order = Packing(taps, groups, block, last, group_width, floats, transforms)
    monkeypatch.setattr(module, "packing", lambda *_: order)
    found = backend.pack(plain_window(len(shape) - 2), Schedule(""), mx.array(weight))
    np.testing.assert_array_max_ulp(np.array(found), packed(weight, order).astype(np.float32), 1)
