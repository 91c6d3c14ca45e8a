"""Transposed convolutions: MLX's layers, with padding of every kind, groups, and channels first."""

from __future__ import annotations

from dataclasses import replace

import mlx.core as mx

from convjit.geometry import GeometryError, Window
from convjit.nn.layer import ConvolutionLayer, Ints, convolve, per_axis, stored
from convjit.nn.padding import Padding, entries


def cut(entry: str | tuple[int, int], kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """How many outputs one axis loses before and after; negative: gains.

    "causal" and "same" leave `size * stride` outputs: "causal" cuts behind only, so that output t sees inputs up to
    t // stride; "same" cuts the odd one behind, as TensorFlow and JAX do.
    """
    surplus = dilation * (kernel - 1) + 1 - stride
    match entry:
        case "valid":
            return 0, 0
        case "causal":
            return 0, surplus
        case "same":
            before = max(surplus, 0) // 2
            return before, surplus - before
        case (int(before), int(after)):
            return before, after
        case _:
            raise AssertionError(entry)


def _within_reach(x: mx.array, kernel: tuple[int, ...], window: Window) -> tuple[mx.array, Window]:
    """The same convolution with no more padding behind than the kernel reaches: MLX 0.32 gives gradients of another
    shape where there is more. Inputs that are zeros stand for it; the pass `fold-pad` makes padding of them again."""
    axes = zip(window.pad_hi, kernel, window.kernel_dilation, window.input_dilation, strict=True)
    zeros = tuple(max(-((d * (k - 1) - hi) // stride), 0) for hi, k, d, stride in axes)
    if not any(zeros):
        return x, window
    hi = tuple(p - n * stride for p, n, stride in zip(window.pad_hi, zeros, window.input_dilation, strict=True))
    return mx.pad(x, [(0, 0), *((0, n) for n in zeros), (0, 0)]), replace(window, pad_hi=hi)


class _ConvTranspose(ConvolutionLayer):
    """`ConvTranspose1d`, `ConvTranspose2d` and `ConvTranspose3d`, but for the rank."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Ints,
        stride: Ints = 1,
        padding: Padding = 0,
        dilation: Ints = 1,
        output_padding: Ints = 0,
        bias: bool = True,
        *,
        groups: int = 1,
        permute: bool = False,
    ):
        super().__init__()
        self._start(in_channels, out_channels, kernel_size, groups, bias, permute)
        self._walk(stride, padding, dilation)
        self.output_padding = stored(output_padding, self.rank)
        self._window((1,) * self.rank)

    def _weight_shape(self, inputs: int, outputs: int, kernel: tuple[int, ...]) -> tuple[int, ...]:
        if self.permute:
            return (inputs, outputs // self.groups, *kernel)
        return (outputs, *kernel, inputs // self.groups)

    def _channels_last_weight(self) -> mx.array:
        if not self.permute:
            return self.weight
        by_group = mx.unflatten(self.weight, 0, (self.groups, -1))  # (groups, C / groups, O / groups, *kernel)
        return mx.flatten(mx.moveaxis(by_group, 1, -1), 0, 1)

    def _window(self, kernel: tuple[int, ...]) -> Window:
        """The window of the same sum as a convolution with stride 1 over the spread input, with the kernel mirrored.

        Raises:
            ValueError: if an argument is not one.
        """
        strides = per_axis("stride", self.stride, self.rank)
        dilation = per_axis("dilation", self.dilation, self.rank)
        more = per_axis("output_padding", self.output_padding, self.rank, least=0)
        cuts = map(cut, entries(self.padding, self.rank), kernel, strides, dilation)
        reach = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        lo, hi = zip(*((r - a, r - b + m) for r, (a, b), m in zip(reach, cuts, more, strict=True)), strict=True)
        return Window((1,) * self.rank, lo, hi, dilation, strides, self.groups, flip=True)

    def _convolution(self, x: mx.array, weight: mx.array) -> mx.array:
        window = self._window(weight.shape[1:-1])
        size = window.out_size(x.shape[1:-1], weight.shape[1:-1])
        if min(size) < 1:
            raise GeometryError(f"padding {self.padding} leaves an output of {size}: use less")
        x, window = _within_reach(x, weight.shape[1:-1], window)
        # MLX 0.32 takes padding below zero off the input before it spreads it; so the output is cut instead.
        lo, hi = (tuple(max(p, 0) for p in side) for side in (window.pad_lo, window.pad_hi))
        y = convolve(x, weight, replace(window, pad_lo=lo, pad_hi=hi))
        if (lo, hi) == (window.pad_lo, window.pad_hi):
            return y
        kept = (slice(a - b, a - b + n) for a, b, n in zip(lo, window.pad_lo, size, strict=True))
        return y[(slice(None), *kept)]

    def _options(self) -> str:
        groups = f"groups={self.groups}, " if self.groups > 1 else ""
        return f"output_padding={self.output_padding}, {groups}"


class ConvTranspose1d(_ConvTranspose):
    """A transposed 1D convolution: `mlx.nn.ConvTranspose1d` with groups, more padding, and channels first if wanted.

    Every input adds its product with the kernel to the outputs from `t * stride` on; then padding cuts the ends:
    ``y[n, t * stride + i * dilation - padding before, o] += x[n, t, c] * weight[o, i, c]``, plus bias[o]. This holds
    where MLX deviates, too: MLX 0.32 cuts inputs where padding is more than dilation * (K - 1).

    Args:
        in_channels: the number of input channels C.
        out_channels: the number of output channels O.
        kernel_size: the number of taps K.
        stride: the distance of two inputs in the output. Default: 1.
        padding: how many outputs are cut off before and after: an int, `(before, after)`, "valid" (none), or "same" or
            "causal" for an output of L * stride, cut at both sides or, so that output t sees no input behind
            t // stride, only behind. See `convjit.nn.padding`. Default: 0.
        dilation: the distance of taps. Default: 1.
        output_padding: how many outputs more there are behind. Default: 0.
        bias: whether to add a learnable bias. Default: True.
        groups: channels are divided into so many groups, convolved apart. Default: 1.
        permute: read and write channels first, with PyTorch's weights. Default: False.

    Parameters:
        weight: (O, K, C / groups); with `permute` (C, O / groups, K). Drawn uniformly within 1 / sqrt(C / groups * K).
        bias: (O,), zeros at first; absent with `bias=False`.

    Shapes:
        input: (N, L, C); with `permute` (N, C, L).
        output: (N, L', O); with `permute` (N, O, L');
        L' = (L - 1) * stride + dilation * (K - 1) + 1 - padding + output_padding, where padding counts both sides.

    Raises:
        ValueError: when made, if an argument is none of the above or channels are not divisible by groups.
        GeometryError: a ValueError; when called, if the input's rank or channels do not fit, or no output is left.

    Example:
        >>> up = convjit.nn.ConvTranspose1d(8, 4, 16, stride=8, padding="causal")
        >>> up(mx.zeros((1, 100, 8))).shape
        (1, 800, 4)
    """

    rank = 1


class ConvTranspose2d(_ConvTranspose):
    """A transposed 2D convolution: `mlx.nn.ConvTranspose2d` with groups, more padding, and channels first if wanted.

    The sum is that of `ConvTranspose1d`, over both axes of the window.

    Args:
        in_channels: the number of input channels C.
        out_channels: the number of output channels O.
        kernel_size: the taps (KH, KW), or one int for both axes.
        stride: the distance of two inputs in the output, an int or (down, right). Default: 1.
        padding: how much of the output is cut off around: an int, (rows, columns), (top, bottom, left, right),
            ((top, bottom), (left, right)), "valid" (nothing), "same" or "causal" (an output of H * stride x W * stride,
            cut on all sides, or below and to the right only), or a word for each axis. See `convjit.nn.padding`.
            Default: 0.
        dilation: the distance of taps, an int or (down, right). Default: 1.
        output_padding: how many rows and columns more there are at the bottom and the right, an int or two. Default: 0.
        bias: whether to add a learnable bias. Default: True.
        groups: channels are divided into so many groups, convolved apart. Default: 1.
        permute: read and write NCHW, with PyTorch's IOHW weights. Default: False.

    Parameters:
        weight: (O, KH, KW, C / groups); with `permute` (C, O / groups, KH, KW). Drawn uniformly within
            1 / sqrt(C / groups * KH * KW).
        bias: (O,), zeros at first; absent with `bias=False`.

    Shapes:
        input: (N, H, W, C); with `permute` (N, C, H, W).
        output: (N, H', W', O); with `permute` (N, O, H', W'); each axis is as long as `ConvTranspose1d` says.

    Raises:
        ValueError: when made, if an argument is none of the above or channels are not divisible by groups.
        GeometryError: a ValueError; when called, if the input's rank or channels do not fit, or no output is left.

    Example:
        >>> up = convjit.nn.ConvTranspose2d(16, 16, 4, stride=2, padding="same", groups=4)
        >>> up(mx.zeros((1, 32, 32, 16))).shape
        (1, 64, 64, 16)
    """

    rank = 2


class ConvTranspose3d(_ConvTranspose):
    """A transposed 3D convolution: `mlx.nn.ConvTranspose3d` with groups, more padding, and channels first if wanted.

    The sum is that of `ConvTranspose1d`, over the three axes of the window.

    Args:
        in_channels: the number of input channels C.
        out_channels: the number of output channels O.
        kernel_size: the taps (KD, KH, KW), or one int for all axes.
        stride: the distance of two inputs in the output, an int or three. Default: 1.
        padding: how much of the output is cut off around: an int, three of them, (front, back, top, bottom, left,
            right), three pairs, "valid" (nothing), "same" or "causal" (an output of size * stride, cut on all sides, or
            behind only), or a word for each axis. See `convjit.nn.padding`. Default: 0.
        dilation: the distance of taps, an int or three. Default: 1.
        output_padding: how many outputs more there are behind on each axis, an int or three. Default: 0.
        bias: whether to add a learnable bias. Default: True.
        groups: channels are divided into so many groups, convolved apart. Default: 1.
        permute: read and write NCDHW, with PyTorch's IODHW weights. Default: False.

    Parameters:
        weight: (O, KD, KH, KW, C / groups); with `permute` (C, O / groups, KD, KH, KW). Drawn uniformly within
            1 / sqrt(C / groups * KD * KH * KW).
        bias: (O,), zeros at first; absent with `bias=False`.

    Shapes:
        input: (N, D, H, W, C); with `permute` (N, C, D, H, W).
        output: (N, D', H', W', O); with `permute` (N, O, D', H', W'); each axis is as long as `ConvTranspose1d` says.

    Raises:
        ValueError: when made, if an argument is none of the above or channels are not divisible by groups.
        GeometryError: a ValueError; when called, if the input's rank or channels do not fit, or no output is left.

    Example:
        >>> up = convjit.nn.ConvTranspose3d(8, 4, 2, stride=2)
        >>> up(mx.zeros((1, 4, 16, 16, 8))).shape
        (1, 8, 32, 32, 4)
    """

    rank = 3
