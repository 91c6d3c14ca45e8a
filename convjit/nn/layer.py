"""What all layers share: their arguments, their parameters, and one convolution of any kind with its errors."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any, ClassVar

import mlx.core as mx
import mlx.nn as nn

from convjit.geometry import Geometry, GeometryError, Window
from convjit.nn.padding import Padding, is_int

Ints = int | Sequence[int]

_LAYOUTS = {1: ("NLC", "NCL"), 2: ("NHWC", "NCHW"), 3: ("NDHWC", "NCDHW")}


def convolve(x: mx.array, weight: mx.array, window: Window) -> mx.array:
    """The convolution of x (N, *spatial, C) with weight (O, *kernel, C / groups) -> (N, *out, O).

    Grouped 3D, which MLX refuses, becomes a split, a convolution for each group, and a concatenation; the pass
    `merge-groups` makes one convolution of them again.

    Raises:
        GeometryError: if they do not make a convolution.
    """
    Geometry.of_shapes(x.shape, weight.shape, window)
    if window.groups == 1 or window.rank < 3:
        return _general(x, weight, window, window.groups)
    parts = zip(mx.split(x, window.groups, -1), mx.split(weight, window.groups, 0), strict=True)
    return mx.concatenate([_general(part, kernels, window, 1) for part, kernels in parts], axis=-1)


def _general(x: mx.array, weight: mx.array, window: Window, groups: int) -> mx.array:
    return mx.conv_general(
        x,
        weight,
        window.strides,
        (window.pad_lo, window.pad_hi),
        window.kernel_dilation,
        window.input_dilation,
        groups,
        window.flip,
    )


def check_channels(inputs: int, outputs: int, groups: int) -> None:
    """Raise ValueError unless both numbers of channels can be divided into `groups`."""
    for what, count in (("input", inputs), ("output", outputs)):
        if count < 1 or groups < 1 or count % groups:
            raise ValueError(
                f"the number of {what} channels ({count}) must be divisible by the number of groups ({groups}), "
                "both at least 1"
            )


def per_axis(what: str, value: Any, rank: int, least: int = 1) -> tuple[int, ...]:
    """`value`, an int or as many ints as there are spatial axes, as one int for each axis.

    Raises:
        ValueError: if it is neither, or an int is smaller than `least`.
    """
    given = (value,) * rank if is_int(value) else value
    try:
        ints = tuple(operator.index(v) for v in given)
    except TypeError:
        ints = ()
    if len(ints) != rank:
        raise ValueError(f"{what} must be an int{f' or {rank} ints' if rank > 1 else ''}, got {value!r}")
    if min(ints) < least:
        raise ValueError(f"{what} must be at least {least}, got {value!r}")
    return ints


def reading(x: mx.array, rank: int, permute: bool) -> str:
    """How a layer took its input, for an error: a wrong layout is the usual mistake."""
    last, first = _LAYOUTS[rank]
    return f"input {x.shape}, read as " + (
        f"{first} because of permute" if permute else f"{last}; permute reads {first}"
    )


def stored(value: Any, rank: int = 1) -> Any:
    """An argument as MLX's layers keep it: an int `rank` times, or as it is in 1D.

    Sequences become tuples, nested ones too: a list in a module would count as a container of parameters.
    """
    if is_int(value):
        return value if rank == 1 else (value,) * rank
    return tuple(map(stored, value)) if isinstance(value, (list, tuple)) else value


class ConvolutionLayer(nn.Module):
    """Parameters, layout and errors of the layers; a subclass says which convolution it is.

    Attributes have the names and forms of MLX's and are read at each call, so that changing `layer.stride` changes
    the next one.
    """

    rank: ClassVar[int]
    weight: mx.array
    bias: mx.array
    groups: int = 1
    permute: bool = False

    def _start(self, inputs: int, outputs: int, kernel_size: Ints, groups: int, bias: bool, permute: bool) -> None:
        """Draw the parameters: the weight uniform within 1 / sqrt(inputs / groups * taps), the bias 0."""
        check_channels(inputs, outputs, groups)
        kernel = per_axis("kernel_size", kernel_size, self.rank)
        scale = math.sqrt(1 / (inputs // groups * math.prod(kernel)))
        self.groups, self.permute = groups, permute
        self.weight = mx.random.uniform(low=-scale, high=scale, shape=self._weight_shape(inputs, outputs, kernel))
        if bias:
            self.bias = mx.zeros((outputs,))

    def _walk(self, stride: Ints, padding: Padding, dilation: Ints) -> None:
        """Keep how the window moves, in the forms that MLX's layers have."""
        self.stride, self.padding = stored(stride, self.rank), stored(padding, self.rank)
        self.dilation = stored(dilation)

    def _weight_shape(self, inputs: int, outputs: int, kernel: tuple[int, ...]) -> tuple[int, ...]:
        raise NotImplementedError

    def _channels_last_weight(self) -> mx.array:
        """The weight as (O, *kernel, C / groups)."""
        raise NotImplementedError

    def _convolution(self, x: mx.array, weight: mx.array) -> mx.array:
        """x (N, *spatial, C), weight (O, *kernel, C / groups) -> (N, *out, O)."""
        raise NotImplementedError

    def _options(self) -> str:
        """The arguments that only this subclass has, as `name=value, ` for `repr`."""
        raise NotImplementedError

    def __call__(self, x: mx.array) -> mx.array:
        try:
            if x.ndim != self.rank + 2:
                raise GeometryError(f"input must have {self.rank + 2} axes")
            y = self._convolution(mx.moveaxis(x, 1, -1) if self.permute else x, self._channels_last_weight())
        except ValueError as error:
            raise GeometryError(f"{self}: {error} ({reading(x, self.rank, self.permute)})") from None
        if "bias" in self:
            y = y + self.bias
        return mx.moveaxis(y, -1, 1) if self.permute else y

    def _extra_repr(self) -> str:
        outputs, *kernel, inputs = self._channels_last_weight().shape
        kernel_size = kernel[0] if self.rank == 1 else tuple(kernel)
        return (
            f"{inputs * self.groups}, {outputs}, kernel_size={kernel_size}, stride={self.stride}, "
            f"padding={self.padding!r}, dilation={self.dilation}, {self._options()}bias={'bias' in self}"
            + (", permute=True" if self.permute else "")
        )
