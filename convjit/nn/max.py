"""Modular MAX's convolution layer in MLX: `max.experimental.nn.Conv2d`, argument for argument.

Arguments, weight layouts, attributes and initial values are those of max 26.7; results are compared with recorded ones.
"""

from __future__ import annotations

from typing import Any, Literal

import mlx.core as mx
import mlx.nn as nn

from convjit.geometry import GeometryError, Window
from convjit.nn.layer import check_channels, convolve, per_axis, reading


class Conv2d(nn.Module):
    """A 2D convolution (cross-correlation) with the arguments of `max.experimental.nn.Conv2d`.

    Args:
        kernel_size: the taps (KH, KW), or one int for both.
        in_channels: the number of input channels C.
        out_channels: the number of output channels O.
        dtype: the parameters' dtype. Default: float32, as MAX has it on a CPU.
        stride: how many elements the window moves, an int or (down, right). Default: 1.
        padding: how many zeros are added around the image: an int, (rows, columns), or (top, bottom, left, right).
            Default: 0.
        dilation: the distance of taps, an int or (down, right). Default: 1.
        num_groups: channels are divided into so many groups, convolved apart. Default: 1.
        device: kept as an attribute, and not used: MLX's arrays live in memory that all devices share, and MLX's
            default device runs the layer.
        has_bias: whether to add a learnable bias. Default: False.
        permute: read and write NCHW with PyTorch's weights. Default: False.
        name: kept as an attribute, and not used, as in MAX.

    Parameters:
        weight: (KH, KW, C / num_groups, O); with `permute` (O, C / num_groups, KH, KW). Standard normal at first.
        bias: (O,), standard normal at first; the number 0 with `has_bias=False`.

    Shapes:
        input: (N, H, W, C); with `permute` (N, C, H, W).
        output: (N, H', W', O); with `permute` (N, O, H', W');
        H' = (H + top + bottom - dilation * (KH - 1) - 1) // stride + 1, W' likewise.

    Raises:
        ValueError: when made, if an argument is none of the above or channels are not divisible by groups.
        GeometryError: a ValueError; when called, if the input's rank, channels or extent do not fit.

    Example:
        >>> conv = convjit.nn.max.Conv2d(3, 3, 64, padding=(0, 1, 0, 1), stride=2, permute=True)
        >>> conv(mx.zeros((1, 3, 224, 224))).shape
        (1, 64, 112, 112)
    """

    weight: mx.array
    bias: mx.array | Literal[0]

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        in_channels: int,
        out_channels: int,
        dtype: mx.Dtype | None = None,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | tuple[int, int, int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        num_groups: int = 1,
        device: Any = None,
        has_bias: bool = False,
        permute: bool = False,
        name: str | None = None,
    ):
        super().__init__()
        check_channels(in_channels, out_channels, num_groups)
        self.in_channels, self.out_channels, self.num_groups = in_channels, out_channels, num_groups
        self.device, self.name = device, name
        self.has_bias, self.permute = has_bias, permute
        self.kernel_size = per_axis("kernel_size", kernel_size, 2)
        self.stride = per_axis("stride", stride, 2)
        self.dilation = per_axis("dilation", dilation, 2)
        if not isinstance(padding, int) and len(padding) == 4:
            self.padding = per_axis("padding", padding, 4, least=0)
        else:
            rows, columns = per_axis("padding", padding, 2, least=0)
            self.padding = rows, rows, columns, columns

        inputs, dtype = in_channels // num_groups, dtype or mx.float32
        shape = (out_channels, inputs, *self.kernel_size) if permute else (*self.kernel_size, inputs, out_channels)
        self.weight = mx.random.normal(shape, dtype)
        self.bias = mx.random.normal((out_channels,), dtype) if has_bias else 0

    @property
    def dtype(self) -> mx.Dtype:
        """The parameters' dtype, also after `set_dtype`."""
        return self.weight.dtype

    def __call__(self, x: mx.array) -> mx.array:
        top, bottom, left, right = self.padding
        window = Window(self.stride, (top, left), (bottom, right), self.dilation, (1, 1), self.num_groups)
        try:
            if x.ndim != 4:
                raise GeometryError("input must have 4 axes")
            if self.permute:
                y = convolve(x.transpose(0, 2, 3, 1), self.weight.transpose(0, 2, 3, 1), window)
            else:
                y = convolve(x, self.weight.transpose(3, 0, 1, 2), window)
        except ValueError as error:
            raise GeometryError(f"{self}: {error} ({reading(x, 2, self.permute)})") from None
        if isinstance(self.bias, mx.array):
            y = y + self.bias
        return y.transpose(0, 3, 1, 2) if self.permute else y

    def _extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, in_channels={self.in_channels}, out_channels={self.out_channels}, "
            f"stride={self.stride}, padding={self.padding}, dilation={self.dilation}, num_groups={self.num_groups}, "
            f"has_bias={self.has_bias}, permute={self.permute}"
        )
