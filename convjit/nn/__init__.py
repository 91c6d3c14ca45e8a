"""Convolution layers with everything that MLX's offer, and what they lack.

    conv = convjit.nn.Conv2d(3, 64, 3, padding="same", padding_mode="reflect")

They take the arguments of `mlx.nn`'s layers in the same order, have the same parameters, and start from the same random
numbers, so weights can be loaded from either. They are plain MLX modules: they run, train and differentiate with or
without `convjit.compile`.

Names:
    Conv1d, Conv2d, Conv3d: padding on each side, "same", "valid" and "causal", padding modes, groups, channels first.
    ConvTranspose1d, ConvTranspose2d, ConvTranspose3d: the same but for modes; right where MLX's deviate.
    from_mlx: one of MLX's six layers as one of these.
    max: `max.Conv2d`, with the arguments, weights and results of Modular MAX's.
"""

from convjit.nn import max
from convjit.nn.convolution import Conv1d, Conv2d, Conv3d
from convjit.nn.port import from_mlx
from convjit.nn.transposed import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d

__all__ = [
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "from_mlx",
    "max",
]
