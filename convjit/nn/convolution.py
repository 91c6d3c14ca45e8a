"""Convolutions: MLX's layers, with padding of every kind, padding modes, groups in 3D, and channels first."""

from __future__ import annotations

from dataclasses import replace

import mlx.core as mx

from convjit.geometry import Window
from convjit.nn.layer import ConvolutionLayer, Ints, convolve, per_axis
from convjit.nn.padding import MODES, Padding, entries, extend


def sides(entry: str | tuple[int, int], size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """One axis's padding before and after an input of `size`.

    "causal" puts all of it before, so that output t sees inputs up to t * stride. "same" makes ceil(size / stride)
    outputs, an odd element of padding behind, as TensorFlow, JAX and PyTorch (for stride 1, its only one) do.
    """
    reach = dilation * (kernel - 1)
    match entry:
        case "valid":
            return 0, 0
        case "causal":
            return reach, 0
        case "same":
            total = max((-(-size // stride) - 1) * stride + reach + 1 - size, 0)
            return total // 2, total - total // 2
        case (int(before), int(after)):
            return before, after
        case _:
            raise AssertionError(entry)


class _Convolution(ConvolutionLayer):
    """`Conv1d`, `Conv2d` and `Conv3d`, but for the rank."""

    padding_mode: str = "zeros"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Ints,
        stride: Ints = 1,
        padding: Padding = 0,
        dilation: Ints = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        padding_mode: str = "zeros",
        permute: bool = False,
    ):
        super().__init__()
        self._start(in_channels, out_channels, kernel_size, groups, bias, permute)
        self._walk(stride, padding, dilation)
        self.padding_mode = padding_mode
        self._window((1,) * self.rank, (1,) * self.rank)

    def _weight_shape(self, inputs: int, outputs: int, kernel: tuple[int, ...]) -> tuple[int, ...]:
        inputs //= self.groups
        return (outputs, inputs, *kernel) if self.permute else (outputs, *kernel, inputs)

    def _channels_last_weight(self) -> mx.array:
        return mx.moveaxis(self.weight, 1, -1) if self.permute else self.weight

    def _window(self, size: tuple[int, ...], kernel: tuple[int, ...]) -> Window:
        """The window over an input of `size`.

        Raises:
            ValueError: if an argument is not one.
        """
        if self.padding_mode not in MODES:
            raise ValueError(f"padding_mode must be one of {', '.join(MODES)}, got {self.padding_mode!r}")
        strides = per_axis("stride", self.stride, self.rank)
        dilation = per_axis("dilation", self.dilation, self.rank)
        padding = entries(self.padding, self.rank)
        lo, hi = zip(*map(sides, padding, size, kernel, strides, dilation), strict=True)
        return Window(strides, lo, hi, dilation, (1,) * self.rank, self.groups)

    def _convolution(self, x: mx.array, weight: mx.array) -> mx.array:
        window = self._window(x.shape[1:-1], weight.shape[1:-1])
        if self.padding_mode == "zeros":
            return convolve(x, weight, window)
        for axis, (lo, hi) in enumerate(zip(window.pad_lo, window.pad_hi, strict=True), start=1):
            x = extend(x, axis, lo, hi, self.padding_mode)
        none = (0,) * self.rank
        return convolve(x, weight, replace(window, pad_lo=none, pad_hi=none))

    def _options(self) -> str:
        mode = "" if self.padding_mode == "zeros" else f"padding_mode={self.padding_mode!r}, "
        groups = f"groups={self.groups}, " if self.rank < 3 or self.groups > 1 else ""  # mlx.nn.Conv3d has none
        return mode + groups


class Conv1d(_Convolution):
    """A 1D convolution (cross-correlation): `mlx.nn.Conv1d` with more padding, and channels first if wanted.

    With t' = t * stride + i * dilation - padding before:
    ``y[n, t, o] = bias[o] + sum over i, c of x[n, t', c] * weight[o, i, c]``, c over the channels of o's group.

    Args:
        in_channels: the number of input channels C.
        out_channels: the number of output channels O.
        kernel_size: the number of taps K.
        stride: how many elements the window moves. Default: 1.
        padding: how many elements are added before and after: an int, `(before, after)`, "same" (an output of
            ceil(L / stride)), "valid" (none), or "causal" (all before: output t sees no input behind t * stride).
            See `convjit.nn.padding`. Default: 0.
        dilation: the distance of taps. Default: 1.
        groups: channels are divided into so many groups, convolved apart. Default: 1.
        bias: whether to add a learnable bias. Default: True.
        padding_mode: what is added: "zeros", or, as in PyTorch, "reflect" (mirrored without the edge), "replicate"
            (the edge again) or "circular" (from the other end). Default: "zeros".
        permute: read and write channels first, with PyTorch's weights. Default: False.

    Parameters:
        weight: (O, K, C / groups); with `permute` (O, C / groups, K). Drawn uniformly within 1 / sqrt(C / groups * K).
        bias: (O,), zeros at first; absent with `bias=False`.

    Shapes:
        input: (N, L, C); with `permute` (N, C, L).
        output: (N, L', O); with `permute` (N, O, L'); L' = (L + padding - dilation * (K - 1) - 1) // stride + 1, where
        padding counts both sides.

    Raises:
        ValueError: when made, if an argument is none of the above or channels are not divisible by groups.
        GeometryError: a ValueError; when called, if the input's rank, channels or length do not fit.

    Example:
        >>> conv = convjit.nn.Conv1d(4, 8, 3, padding="causal", dilation=2)
        >>> conv(mx.zeros((1, 100, 4))).shape
        (1, 100, 8)
    """

    rank = 1


class Conv2d(_Convolution):
    """A 2D convolution (cross-correlation): `mlx.nn.Conv2d` with more padding, and channels first if wanted.

    The sum is that of `Conv1d`, over both axes of the window.

    Args:
        in_channels: the number of input channels C.
        out_channels: the number of output channels O.
        kernel_size: the taps (KH, KW), or one int for both axes.
        stride: how many elements the window moves, an int or (down, right). Default: 1.
        padding: how much is added around the image: an int, (rows, columns), (top, bottom, left, right),
            ((top, bottom), (left, right)), "same" (an output of ceil(H / stride) x ceil(W / stride)), "valid" (none),
            "causal" (all of it above and left), or a word for each axis: `("causal", "same")`. See
            `convjit.nn.padding`. Default: 0.
        dilation: the distance of taps, an int or (down, right). Default: 1.
        groups: channels are divided into so many groups, convolved apart; groups=C is a depthwise convolution.
            Default: 1.
        bias: whether to add a learnable bias. Default: True.
        padding_mode: what is added: "zeros", or, as in PyTorch, "reflect" (mirrored without the edge), "replicate"
            (the edge again) or "circular" (from the other side). Default: "zeros".
        permute: read and write NCHW, with PyTorch's OIHW weights, as in Modular MAX. Default: False.

    Parameters:
        weight: (O, KH, KW, C / groups); with `permute` (O, C / groups, KH, KW). Drawn uniformly within
            1 / sqrt(C / groups * KH * KW).
        bias: (O,), zeros at first; absent with `bias=False`.

    Shapes:
        input: (N, H, W, C); with `permute` (N, C, H, W).
        output: (N, H', W', O); with `permute` (N, O, H', W'); each axis is as long as `Conv1d` says.

    Raises:
        ValueError: when made, if an argument is none of the above or channels are not divisible by groups.
        GeometryError: a ValueError; when called, if the input's rank, channels or extent do not fit.

    Example:
        >>> conv = convjit.nn.Conv2d(3, 64, 3, stride=2, padding=(0, 1, 0, 1), padding_mode="replicate")
        >>> conv(mx.zeros((1, 224, 224, 3))).shape
        (1, 112, 112, 64)
    """

    rank = 2


class Conv3d(_Convolution):
    """A 3D convolution (cross-correlation): `mlx.nn.Conv3d` with groups, more padding, and channels first if wanted.

    The sum is that of `Conv1d`, over the three axes of the window.

    Args:
        in_channels: the number of input channels C.
        out_channels: the number of output channels O.
        kernel_size: the taps (KD, KH, KW), or one int for all axes.
        stride: how many elements the window moves, an int or three. Default: 1.
        padding: how much is added around the volume: an int, three of them, (front, back, top, bottom, left, right),
            three pairs, "same" (an output of ceil(size / stride)), "valid" (none), "causal" (all of it before), or a
            word for each axis, as `("causal", "same", "same")` in video models. See `convjit.nn.padding`. Default: 0.
        dilation: the distance of taps, an int or three. Default: 1.
        bias: whether to add a learnable bias. Default: True.
        groups: channels are divided into so many groups, convolved apart. Default: 1.
        padding_mode: what is added: "zeros", or, as in PyTorch, "reflect" (mirrored without the edge), "replicate"
            (the edge again) or "circular" (from the other side). Default: "zeros".
        permute: read and write NCDHW, with PyTorch's OIDHW weights. Default: False.

    Parameters:
        weight: (O, KD, KH, KW, C / groups); with `permute` (O, C / groups, KD, KH, KW). Drawn uniformly within
            1 / sqrt(C / groups * KD * KH * KW).
        bias: (O,), zeros at first; absent with `bias=False`.

    Shapes:
        input: (N, D, H, W, C); with `permute` (N, C, D, H, W).
        output: (N, D', H', W', O); with `permute` (N, O, D', H', W'); each axis is as long as `Conv1d` says.

    Raises:
        ValueError: when made, if an argument is none of the above or channels are not divisible by groups.
        GeometryError: a ValueError; when called, if the input's rank, channels or extent do not fit.

    Example:
        >>> conv = convjit.nn.Conv3d(8, 16, 3, padding=("causal", "same", "same"), groups=2)
        >>> conv(mx.zeros((1, 9, 32, 32, 8))).shape
        (1, 9, 32, 32, 16)
    """

    rank = 3

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Ints,
        stride: Ints = 1,
        padding: Padding = 0,
        dilation: Ints = 1,
        bias: bool = True,  # in mlx.nn.Conv3d's place: it has no groups
        *,
        groups: int = 1,
        padding_mode: str = "zeros",
        permute: bool = False,
    ):
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode=padding_mode,
            permute=permute,
        )
