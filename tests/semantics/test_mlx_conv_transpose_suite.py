"""What MLX's own test_conv_transpose.py tests, of compiled functions; large extents are smaller here."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from checks import fast_of
from suite import Case, assert_close, check, check_gradients

CHANNELS = [(1, 1, 1), (1, 6, 1), (1, 1, 6), (2, 32, 64)]
"""Batch, input channels, output channels."""


def windows(rank: int) -> list[tuple[tuple[int, ...], tuple[int, ...], dict]]:
    """Extents of input and kernel, and arguments."""
    one, three, size = (1,) * rank, (3,) * rank, (31, 15, 5)[rank - 1]
    kernel = 5 if rank < 3 else 3
    return [
        (one, one, {}),
        (three, (3, 1, 1)[:rank], {}),
        ((size,) * rank, (kernel,) * rank, {"stride": kernel, "padding": 2}),
    ]


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_every_rank(rank):
    check(
        Case(f"conv_transpose{rank}d", (n, *size, c), (o, *kernel, c), arguments)
        for n, c, o in CHANNELS
        for size, kernel, arguments in windows(rank)
    )


@pytest.mark.parametrize("rank", [1, 2])
def test_groups(rank):
    check(
        Case(f"conv_transpose{rank}d", (2, *size, 8), (12, *kernel, 8 // groups), {**arguments, "groups": groups})
        for size, kernel, arguments in windows(rank)
        for groups in (2, 4)
    )


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1)])
@pytest.mark.parametrize("inside", [True, False])
def test_transposed_operands(order, inside):
    """Arrays that are transposed before they are given to the function, or in it."""
    case = Case("conv_transpose1d", (16, 16, 16), (16, 16, 16))
    x, w = case.random(what="x"), case.random(what="w")

    def views(x, w):
        return x.transpose(0, 2, 1), w.transpose(order)

    arrays = mx.array(x), mx.array(w)
    if inside:
        result = fast_of(lambda x, w: mx.conv_transpose1d(*views(x, w)))(*arrays)
    else:
        result = fast_of(mx.conv_transpose1d)(*views(*arrays))
    assert_close(result, case.reference(*views(x, w)), order)


GRADIENTS = {
    1: windows(1),
    2: [
        *windows(2)[:2],
        ((7, 7), (5, 5), {"stride": 5, "padding": 2}),
        ((8, 7), (3, 3), {"stride": 2, "padding": 1}),
        ((7, 7), (5, 5), {"stride": 5, "padding": 2, "dilation": (3, 2)}),
        ((8, 7), (3, 3), {"stride": 2, "padding": 1, "dilation": (3, 2)}),
    ],
    3: [
        *windows(3)[:2],
        ((3, 3, 3), (5, 5, 5), {"stride": 5, "padding": 2}),
        ((4, 4, 4), (3, 3, 3), {"stride": 2, "padding": 1}),
        ((3, 3, 3), (5, 5, 5), {"stride": 3, "padding": 2, "dilation": (3, 2, 2)}),
        ((4, 4, 4), (3, 3, 3), {"stride": 2, "padding": 1, "dilation": (3, 2, 2)}),
    ],
}


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_gradients(rank):
    check_gradients(
        Case(f"conv_transpose{rank}d", (n, *size, c), (o, *kernel, c), arguments)
        for n, c, o in [(1, 1, 1), (1, 6, 1), (1, 1, 6), (2, 4, 8)]
        for size, kernel, arguments in GRADIENTS[rank]
    )


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_output_padding(rank):
    check(
        Case(f"conv_transpose{rank}d", (n, *(size,) * rank, c), (o, *(kernel,) * rank, c), arguments)
        for n, c, o in [(1, 1, 1), (1, 6, 1), (2, 16, 24)]
        for size, kernel, arguments in [
            (3, 2, {"stride": 2, "padding": 0, "output_padding": 1}),
            (5, 3, {"stride": 2, "padding": 1, "output_padding": 0}),
            (7 - rank, 4, {"stride": 3, "padding": 1, "output_padding": 2}),
        ]
    )


def test_tiles_of_the_output():
    check(
        [
            Case("conv_transpose1d", (2, 9, 4), (5, 3, 4), {"stride": 2}),
            Case("conv_transpose2d", (2, 5, 5, 4), (5, 3, 3, 4), {"stride": 2}),
            Case("conv_transpose3d", (1, 4, 4, 4, 2), (3, 2, 2, 2, 2), {"stride": 2}),
            Case("conv_transpose1d", (2, 9, 4), (6, 3, 2), {"stride": 2, "groups": 2}),
        ]
    )


DEVIATIONS = [
    Case("conv_transpose1d", (1, 7, 3), (4, 2, 3), {"stride": 2, "padding": 2}),
    Case("conv_transpose2d", (1, 5, 5, 4), (6, 3, 3, 4), {"stride": 2, "padding": 3}),
    Case("conv_transpose3d", (1, 3, 4, 3, 2), (2, 2, 1, 2, 2), {"stride": 2, "padding": (0, 1, 0)}),
]
"""Where padding exceeds dilation * (kernel - 1), MLX takes the excess off the undilated input."""


@pytest.mark.parametrize("case", DEVIATIONS, ids=str)
def test_what_mlx_defines_otherwise(case):
    """A compiled function keeps MLX's results, which are not those of the definition; `convjit.nn` has the latter."""
    x, w = mx.array(case.random(what="x")), mx.array(case.random(what="w"))
    plain = np.array(case.call(x, w), np.float64)
    assert_close(fast_of(case.call)(x, w), plain, case)
    defined = case.reference(np.array(x), np.array(w))
    assert plain.shape != defined.shape or np.abs(plain - defined).max() > 0.1
