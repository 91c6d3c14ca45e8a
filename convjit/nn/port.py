"""MLX's own convolution layers as layers of `convjit.nn`."""

from __future__ import annotations

import copy

import mlx.nn as nn

from convjit.nn.convolution import Conv1d, Conv2d, Conv3d
from convjit.nn.layer import ConvolutionLayer
from convjit.nn.transposed import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d

_LAYERS: dict[type[nn.Module], type[ConvolutionLayer]] = {
    nn.Conv1d: Conv1d,
    nn.Conv2d: Conv2d,
    nn.Conv3d: Conv3d,
    nn.ConvTranspose1d: ConvTranspose1d,
    nn.ConvTranspose2d: ConvTranspose2d,
    nn.ConvTranspose3d: ConvTranspose3d,
}


def from_mlx(layer: nn.Module) -> ConvolutionLayer:
    """The layer of `convjit.nn` that does what one of MLX's six convolution layers does.

    The two share their arrays, as they are now: nothing is copied, and replacing an array in one of them leaves the
    other as it is. Frozen parameters stay frozen. The random state is not touched.

    Args:
        layer: an `mlx.nn.Conv1d`, `Conv2d`, `Conv3d`, `ConvTranspose1d`, `ConvTranspose2d` or `ConvTranspose3d`.

    Raises:
        TypeError: if it is anything else, a subclass included: what it adds would be lost.

    Example:
        >>> conv = convjit.nn.from_mlx(mlx.nn.Conv2d(3, 8, 3))
        >>> conv.padding = "same"
    """
    ours = _LAYERS.get(type(layer))
    if ours is None:
        names = ", ".join(f"mlx.nn.{theirs.__name__}" for theirs in _LAYERS)
        raise TypeError(f"from_mlx takes {names}; got {type(layer).__module__}.{type(layer).__name__}")
    twin = ours.__new__(ours)
    dict.update(twin, layer)  # arrays and tuples; an nn.Module keeps the rest as attributes
    vars(twin).update({name: copy.copy(value) for name, value in vars(layer).items()})
    return twin
