"""What MLX's own test_conv.py tests, of compiled functions; large extents are smaller here."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from checks import fast_of
from suite import Case, assert_close, check, check_gradients

CHANNELS = [(1, 1, 1), (1, 6, 1), (1, 1, 6), (4, 32, 64)]
"""Batch, input channels, output channels."""

CONVOLVE = [
    (1, 1, "full"),
    (25, 5, "full"),
    (24, 5, "same"),
    (24, 4, "same"),
    (24, 4, "valid"),
    (4, 24, "full"),
    (5, 25, "same"),
    (4, 25, "valid"),
]


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16], ids=str)
def test_convolve(dtype):
    rng = np.random.default_rng(0)
    pairs = [(mx.array(rng.random(m)).astype(dtype), mx.array(rng.random(n)).astype(dtype)) for m, n, _ in CONVOLVE]

    def function(*pairs):
        return [mx.convolve(a, v, mode=mode) for (a, v), (_, _, mode) in zip(pairs, CONVOLVE, strict=True)]

    for (a, v), (m, n, mode), result in zip(pairs, CONVOLVE, fast_of(function)(*pairs), strict=True):
        want = np.convolve(np.array(a, np.float64), np.array(v, np.float64), mode)
        assert_close(result, want, (m, n, mode))


def windows(rank: int) -> list[tuple[tuple[int, ...], tuple[int, ...], dict]]:
    """Extents of input and kernel, and arguments."""
    one, three, size = (1,) * rank, (3,) * rank, (31, 31, 16)[rank - 1]
    return [
        (one, one, {}),
        (three, (3, 1, 1)[:rank], {}),
        ((size,) * rank, (5,) * rank, {"stride": 5, "padding": 2}),
    ]


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_every_rank(rank):
    check(
        Case(f"conv{rank}d", (n, *size, c), (o, *kernel, c), arguments)
        for n, c, o in CHANNELS
        for size, kernel, arguments in windows(rank)[rank > 1 :]  # one element is one element
    )


def test_dilated_3d():
    check([Case("conv3d", (2, 6, 6, 6, 4), (4, 3, 1, 1, 4), {"dilation": 2})])


def test_groups_1d():
    check(
        Case("conv1d", (4, *size, 32), (64, *kernel, 32 // groups), {**arguments, "groups": groups})
        for size, kernel, arguments in windows(1)
        for groups in (2, 32)
    )


def test_groups_1d_flipped():
    x = mx.broadcast_to(mx.arange(5.0), (2, 5)).T[None]
    w = mx.broadcast_to(mx.arange(4.0), (2, 4))[..., None]
    fast = fast_of(lambda x, w: mx.conv_general(x, w, flip=True, groups=2))
    assert fast(x, w).tolist() == [[[4, 4], [10, 10]]]


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1)])
@pytest.mark.parametrize("inside", [True, False])
def test_transposed_operands(order, inside):
    """Arrays that are transposed before they are given to the function, or in it."""
    case = Case("conv1d", (16, 16, 16), (16, 16, 16))
    x, w = case.random(what="x"), case.random(what="w")

    def views(x, w):
        return x.transpose(0, 2, 1), w.transpose(order)

    arrays = mx.array(x), mx.array(w)
    result = fast_of(lambda x, w: mx.conv1d(*views(x, w)))(*arrays) if inside else fast_of(mx.conv1d)(*views(*arrays))
    assert_close(result, case.reference(*views(x, w)), order)


GRADIENTS = {
    1: [*windows(1)],
    2: [
        *windows(2),
        ((16, 15), (3, 3), {"stride": 2, "padding": 1}),
        ((31, 31), (5, 5), {"stride": 5, "padding": 2, "dilation": (3, 2)}),
        ((16, 15), (3, 3), {"stride": 2, "padding": 1, "dilation": (3, 2)}),
    ],
    3: [
        *windows(3)[:2],
        ((7, 7, 7), (5, 5, 5), {"stride": 5, "padding": 2}),
        ((6, 6, 6), (3, 3, 3), {"stride": 2, "padding": 1}),
        ((15, 11, 11), (5, 5, 5), {"stride": 5, "padding": 2, "dilation": (3, 2, 2)}),
        ((6, 6, 6), (3, 3, 3), {"stride": 2, "padding": 1, "dilation": (3, 2, 2)}),
    ],
}


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_gradients(rank):
    check_gradients(
        Case(f"conv{rank}d", (n, *size, c), (o, *kernel, c), arguments)
        for n, c, o in [(1, 1, 1), (1, 6, 1), (1, 1, 6), (2, 8, 12)]
        for size, kernel, arguments in GRADIENTS[rank]
    )


def test_gradients_of_groups():
    check_gradients(
        [
            *(
                Case("conv2d", (2, 8, 9, 32), (32, 3, 3, 32 // g), {"stride": 2, "padding": 1, "groups": g})
                for g in (2, 4, 32)
            ),
            Case("conv1d", (1, 5, 2), (2, 3, 1), {"groups": 2}),
            Case("conv1d", (1, 5, 4), (2, 3, 2), {"groups": 2}),
            Case("conv1d", (1, 5, 4), (6, 3, 2), {"groups": 2}),
            Case("conv2d", (1, 5, 5, 2), (2, 3, 3, 1), {"groups": 2}),
            Case("conv_general", (1, 5, 2), (2, 3, 1), {"groups": 2, "flip": True}),
            Case("conv_general", (1, 5, 4), (2, 3, 2), {"groups": 2, "flip": True}),
            Case("conv_general", (1, 5, 5, 2), (2, 3, 3, 1), {"groups": 2, "flip": True}),
            Case("conv_general", (3, 5, 4), (6, 2, 2), {"stride": 2, "groups": 2}),
            Case("conv_general", (3, 5, 4), (24, 2, 1), {"stride": 2, "groups": 4}),
            Case("conv_general", (3, 5, 5, 4), (6, 2, 2, 2), {"stride": (2, 1), "groups": 2}),
            Case("conv_general", (3, 5, 5, 4), (24, 2, 2, 1), {"stride": (2, 2), "groups": 4}),
        ]
    )


def test_gradients_of_flipped_kernels():
    check_gradients(
        Case("conv_general", (1, 2, 2, 1), (1, 2, 2, 1), {"flip": True, "padding": 1, "input_dilation": dilation})
        for dilation in (1, 2)
    )


def test_gradients_of_much_padding():
    """MLX's own case asks for the weight's only: its gradient of the input has another shape than the input."""
    much = {"flip": True, "padding": ([6, 6], [15, 15]), "input_dilation": 16}
    case = Case("conv_general", (1, 6, 6, 2), (2, 7, 7, 2), much)
    check_gradients([case], of="w")
    x, w = mx.zeros(case.x), mx.zeros(case.w)
    assert mx.grad(lambda x: case.call(x, w).sum())(x).shape == (1, 3, 3, 2)


GENERAL = [
    ((5, 5), {"padding": 2, "kernel_dilation": (2, 3)}),
    ((5, 10), {"stride": (2, 3), "kernel_dilation": (3, 2), "input_dilation": (2, 4)}),
    ((5, 10), {"stride": 2, "padding": (3, 2), "kernel_dilation": (3, 2), "input_dilation": (2, 4)}),
    ((5, 10), {"stride": (2, 3), "padding": (3, 2), "kernel_dilation": (3, 2), "input_dilation": (2, 5)}),
    ((5, 5), {"stride": (2, 3), "kernel_dilation": (3, 1), "input_dilation": (2, 5), "flip": True}),
]


def test_general():
    check(Case("conv_general", (2, 16, 17, 16), (32, *kernel, 16), arguments) for kernel, arguments in GENERAL)


@pytest.mark.parametrize(("dtype", "flip"), [(mx.float32, True), (mx.float16, False)], ids=str)
def test_depthwise(dtype, flip):
    cases = [
        ((2, 16, 16), (1, 1), {"stride": 2, "padding": 1}),
        ((1, 16, 16), (3, 3), {"stride": 2, "padding": 1}),
        ((1, 17, 16), (7, 7), {"padding": 3}),
        ((3, 16, 16), (5, 5), {"stride": (1, 2)}),
        ((1, 16, 16), (7, 7), {"stride": (2, 1), "padding": (1, 3)}),
    ]
    groups = {"groups": 32, "flip": flip}
    check((Case("conv_general", (*x, 32), (32, *w, 1), {**a, **groups}) for x, w, a in cases), dtype)


def test_asymmetric_padding():
    check(
        [
            Case(
                "conv_general",
                (2, 8, 8, 8, 3),
                (2, 3, 3, 3, 3),
                {"stride": (2, 2, 2), "padding": ([0, 0, 0], [1, 1, 1])},
            ),
            Case("conv_general", (2, 10, 10, 3), (2, 2, 2, 3), {"padding": ([0, 0], [1, 0])}),
        ]
    )


@pytest.mark.parametrize("channels", [16, 4])
def test_1d_as_2d(channels):
    case = Case("conv1d", (2, 10, channels), (channels, 3, channels), {"padding": 1})
    x, w = mx.array(case.random(what="x")), mx.array(case.random(what="w"))

    def as_2d(x, w):
        return mx.conv2d(mx.expand_dims(x, 2), mx.expand_dims(w, 2), padding=(1, 0)).squeeze(2)

    assert_close(fast_of(as_2d)(x, w), case.reference(np.array(x), np.array(w)), case)


def test_repeated():
    """The same convolution twice in one function, and called again: the same bits."""
    case = Case("conv2d", (1, 3, 3, 320), (32, 3, 3, 320), {"padding": 1})
    x, w = mx.array(case.random(what="x")), mx.array(case.random(what="w"))
    fast = fast_of(lambda x, w: (case.call(x, w), case.call(x, w + 0)))
    first = fast(x, w)
    for result in (*first, *fast(x, w)):
        assert mx.array_equal(result, first[0])


def test_unaligned_channels():
    check(
        [
            Case("conv2d", (2, 9, 9, 21), (32, 3, 3, 21)),
            Case("conv2d", (2, 9, 9, 21), (21, 3, 3, 21)),
            Case("conv2d", (2, 9, 9, 24), (32, 5, 5, 24), {"padding": 2}),
            Case("conv_transpose2d", (2, 9, 9, 24), (32, 3, 3, 24)),
        ]
    )


def test_many_channels():
    """Of the kind that MLX takes to Winograd's algorithm on Metal, as convjit does on a CPU."""
    check(
        Case("conv2d", x, w, {"padding": 1})
        for x, w in [((3, 12, 12, 64), (192, 3, 3, 64)), ((2, 13, 11, 192), (96, 3, 3, 192))]
    )


def test_a_filter_larger_than_the_input():
    check([Case("conv2d", (1, 61, 61, 1), (1, 62, 62, 1), {"padding": 1})])


def test_small_depths_3d():
    check(
        Case("conv_general", (1, *size, c), (o, *kernel, c), {"stride": (1, 1, 1), "flip": flip})
        for size, c, o, kernel, flip in [
            ((5, 9, 9), 32, 32, (3, 3, 3), False),
            ((4, 8, 7), 16, 48, (3, 3, 3), True),
            ((6, 9, 9), 32, 32, (1, 3, 3), False),
            ((5, 7, 7), 16, 16, (5, 1, 1), True),
            ((4, 7, 7), 32, 16, (2, 3, 3), True),
        ]
    )


EVERY_FUNCTION = [
    Case("conv1d", (2, 9, 4), (6, 3, 2), {"stride": 2, "padding": 1, "groups": 2}),
    Case("conv2d", (1, 6, 5, 4), (6, 3, 2, 4), {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2)}),
    Case("conv3d", (1, 4, 5, 4, 3), (6, 2, 3, 1, 3), {"stride": 2, "padding": 1}),
    Case("conv_transpose1d", (2, 5, 4), (6, 3, 2), {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2}),
    Case("conv_transpose2d", (1, 4, 5, 4), (6, 3, 2, 4), {"stride": (2, 1), "padding": (1, 0)}),
    Case("conv_transpose3d", (1, 3, 2, 3, 3), (4, 2, 3, 2, 3), {"stride": 2, "padding": 1}),
    Case("conv_general", (1, 6, 5, 4), (6, 3, 2, 2), {"padding": ([1, 0], [2, 1]), "groups": 2, "flip": True}),
    Case("conv_general", (1, 4, 3, 4), (5, 3, 2, 4), {"input_dilation": (2, 3), "stride": (2, 1), "padding": 2}),
]


HALVES = [(mx.bfloat16, 0), (mx.float16, 1)]
"""And which cases they get: every function has one of them."""


@pytest.mark.parametrize(("dtype", "first"), HALVES, ids=str)
def test_every_function_in_half(dtype, first):
    check(EVERY_FUNCTION[first::2], dtype)


@pytest.mark.parametrize(("dtype", "first"), [(mx.float32, 2), *HALVES], ids=str)
def test_functions_in_the_simulator(dtype, first):
    """tests/simulator has many more."""
    check(EVERY_FUNCTION[first::4], dtype, backend="simulator")


@pytest.mark.parametrize(("x", "w"), [(mx.float16, mx.float32), (mx.float32, mx.bfloat16), (mx.float32, mx.int32)])
def test_operands_of_two_dtypes(x, w):
    """MLX promotes them first."""
    case = Case("conv2d", (1, 5, 5, 4), (6, 3, 3, 4))
    arrays = mx.array(case.random(what="x")).astype(x), (3 * mx.array(case.random(what="w"))).astype(w)
    result = fast_of(case.call)(*arrays)
    assert result.dtype == mx.float32
    assert_close(result, case.reference(*(np.array(a.astype(mx.float32)) for a in arrays)), (x, w))
