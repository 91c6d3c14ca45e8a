"""PyTorch: eager, where it picks oneDNN or kernels of its own; and oneDNN as `torch.compile` calls it."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from benchmarks.layers.frameworks import Arguments, arguments, channels_first, channels_last, first_weight
from benchmarks.layers.network import Array, Network, Way

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
LAST = {2: torch.channels_last, 3: torch.channels_last_3d}

Layer = Callable[[torch.Tensor], torch.Tensor]


def eager(last: bool, network: Network, threads: int, bound: bool) -> Way:
    """Input and weights in channels_last or in PyTorch's usual order, ReLU in place behind the convolution. Bound and
    as a user are the same.
    """
    return _way(network, threads, last, _eager_layer)


def packed(network: Network, threads: int, bound: bool) -> Way:
    """oneDNN in channels_last, weights packed before and ReLU fused: the ops that a frozen graph is compiled to."""
    return _way(network, threads, True, _packed_layer)


def _way(
    network: Network,
    threads: int,
    last: bool,
    make: Callable[[Arguments, torch.Tensor, torch.Tensor, torch.Tensor], Layer],
) -> Way:
    """All layers one behind the other; `make` gives each of its arguments, an input, its weight and its bias.

    One axis is as two with a height of 1 in channels_last, which knows no other.
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
    with torch.inference_mode():
        layers = [make(args, x, *pair) for pair in zip(weights, map(tensor, network.biases), strict=True)]

    def run() -> torch.Tensor:
        with torch.inference_mode():
            y = x
            for layer in layers:
                y = layer(y)
            return y

    def output() -> Array:
        y = run().float().contiguous()
        return channels_last((y.squeeze(2) if is_flat else y).numpy())

    return Way(run, output)


def _eager_layer(args: Arguments, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> Layer:
    rank = x.ndim - 2
    if args.transposed:
        more = (args.strides, args.begin, args.output_padding, args.groups, args.dilations)
        return lambda x: torch.relu_(TRANSPOSED[rank](x, weight, bias, *more))
    sides, padding = _padding(args)
    more = (args.strides, padding, args.dilations, args.groups)
    return lambda x: torch.relu_(CONVOLUTIONS[rank](F.pad(x, sides) if sides else x, weight, bias, *more))


def _packed_layer(args: Arguments, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> Layer:
    onednn, relu = torch.ops.mkldnn, ("relu", [], "")
    if args.transposed:
        more = (args.begin, args.output_padding, args.strides, args.dilations, args.groups)
        own = onednn._reorder_convolution_transpose_weight(weight, *more, x.shape)
        return lambda x: onednn._convolution_transpose_pointwise(x, own, bias, *more, *relu)
    sides, padding = _padding(args)
    seen = F.pad(x, sides) if sides else x
    more = (padding, args.strides, args.dilations, args.groups)
    own = onednn._reorder_convolution_weight(weight, *more, seen.shape)
    return lambda x: onednn._convolution_pointwise(F.pad(x, sides) if sides else x, own, bias, *more, *relu)


def _padding(args: Arguments) -> tuple[list[int], list[int]]:
    """What has to be padded before, as `F.pad` takes it, and the padding of the convolution itself."""
    if args.begin == args.end:
        return [], args.begin
    both = zip(reversed(args.begin), reversed(args.end), strict=True)
    return [p for sides in both for p in sides], [0] * len(args.begin)


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
