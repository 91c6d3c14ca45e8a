"""`convjit.nn` has the layers of `mlx.nn` with what ported models need: padding on each side, groups, channels first.

python examples/nn_layers.py
"""

import mlx.core as mx
import mlx.nn as nn

import convjit

LAYERS = {
    "an autoencoder's downsampling": (
        convjit.nn.Conv2d(8, 16, 3, stride=2, padding=(0, 1, 0, 1)),  # top, bottom, left, right
        (1, 32, 32, 8),
    ),
    "video: causal in time, mirrored in space, in groups": (
        convjit.nn.Conv3d(8, 8, 3, padding=("causal", "same", "same"), groups=2, padding_mode="reflect"),
        (1, 5, 16, 16, 8),
    ),
    "a vocoder's upsampling by 8, causal": (
        convjit.nn.ConvTranspose1d(16, 8, 16, stride=8, padding="causal"),
        (1, 50, 16),
    ),
    "PyTorch's layout: NCHW, with OIHW weights": (
        convjit.nn.Conv2d(8, 8, 3, padding="same", padding_mode="circular", permute=True),
        (1, 8, 16, 16),
    ),
    "Modular MAX's arguments and layouts": (
        convjit.nn.max.Conv2d(kernel_size=3, in_channels=8, out_channels=16, padding=1, num_groups=2, has_bias=True),
        (1, 16, 16, 8),
    ),
    "a layer of MLX, padded otherwise": (
        convjit.nn.from_mlx(nn.Conv2d(8, 8, 5)),
        (1, 16, 16, 8),
    ),
}
LAYERS["a layer of MLX, padded otherwise"][0].padding = "same"

for name, (layer, shape) in LAYERS.items():
    fast = convjit.compile(layer, fallback="error")
    x = mx.random.normal(shape)
    y = fast(x)
    print(f"{name}\n  {layer}\n  {x.shape} -> {y.shape}")
    print(f"  largest difference from plain MLX: {mx.abs(y - layer(x)).max().item():.1e}\n")
