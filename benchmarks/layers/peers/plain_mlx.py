"""MLX's own ops on the CPU: what the user would run without convjit. It is measured apart, as it takes seconds."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx

from benchmarks.layers.engines import mlx_way
from benchmarks.layers.network import Network, Way
from convjit.backends import MLX_DTYPES


def function(network: Network) -> Callable[[mx.array], mx.array]:
    """The network as a user of MLX writes it."""
    window, dtype = network.geometry.window, MLX_DTYPES[network.dtype]
    layers = [
        (mx.array(w).astype(dtype), mx.array(b).astype(dtype))
        for w, b in zip(network.weights, network.biases, strict=True)
    ]
    mx.eval(layers)

    def run(x: mx.array) -> mx.array:
        for weight, bias in layers:
            x = mx.conv_general(
                x,
                weight,
                window.strides,
                (window.pad_lo, window.pad_hi),
                window.kernel_dilation,
                window.input_dilation,
                window.groups,
                window.flip,
            )
            x = mx.maximum(x + bias, 0)
        return x

    return run


def way(network: Network, call: Callable[[mx.array], mx.array] | None = None) -> Way:
    """An MLX array in, an evaluated MLX array out; through `call` if it is given, such as the function compiled."""
    return mlx_way(call or function(network), mx.array(network.x).astype(MLX_DTYPES[network.dtype]))
