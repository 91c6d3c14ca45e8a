"""PyTorch, eager: oneDNN, or kernels of its own where it prefers them; ReLU in place behind the convolution."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from benchmarks.layers.frameworks import Arguments, arguments, channels_first, channels_last, first_weight
from benchmarks.layers.network import Array, Network, Way

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
LAST = {2: torch.channels_last, 3: torch.channels_last_3d}


def way(last: bool, network: Network, threads: int, bound: bool) -> Way:
    """Input and weights in channels_last or in PyTorch's usual order; one axis is as two with a height of 1 for
    channels_last, which knows no other. Bound and as a user are the same.
    """
    torch.set_num_threads(threads)
    args, rank = arguments(network.geometry), network.geometry.rank
    is_flat = last and rank == 1
    if is_flat:
        args, rank = _with_height(args), 2

    def tensor(array: Array) -> torch.Tensor:
        made = torch.tensor(array).to(DTYPES[network.dtype])
        if made.ndim == 1:
            return made
        made = made.unsqueeze(2) if is_flat else made
        return made.contiguous(memory_format=LAST[rank]) if last else made

    x = tensor(channels_first(network.x))
    weights = [tensor(first_weight(w, args.transposed, args.groups)) for w in network.weights]
    layers = list(zip(weights, map(tensor, network.biases), strict=True))

    def run() -> torch.Tensor:
        with torch.inference_mode():
            y = x
            for weight, bias in layers:
                y = torch.relu_(_convolution(args, rank, y, weight, bias))
            return y

    def output() -> Array:
        y = run().float().contiguous()
        return channels_last((y.squeeze(2) if is_flat else y).numpy())

    return Way(run, output)


def _convolution(args: Arguments, rank: int, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    if args.transposed:
        return TRANSPOSED[rank](
            x, weight, bias, args.strides, args.begin, args.output_padding, args.groups, args.dilations
        )
    padding = args.begin
    if args.begin != args.end:
        sides = [p for lo, hi in zip(reversed(args.begin), reversed(args.end), strict=True) for p in (lo, hi)]
        x, padding = F.pad(x, sides), [0] * rank
    return CONVOLUTIONS[rank](x, weight, bias, args.strides, padding, args.dilations, args.groups)


def _with_height(args: Arguments) -> Arguments:
    """The same along the second of two axes, the first of which has extent 1."""
    return Arguments(
        args.transposed,
        [1, *args.strides],
        [0, *args.begin],
        [0, *args.end],
        [1, *args.dilations],
        [0, *args.output_padding],
        args.groups,
    )
