"""The engines beside which convjit is measured, each at its best settings; ONNX is exported from PyTorch."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch._inductor.config

from benchmarks.layers.frameworks import channels_first, channels_last
from benchmarks.layers.network import Array, Refused, Way
from benchmarks.layers.peers import onnx_runtime, open_vino
from benchmarks.layers.peers.pytorch import DTYPES
from benchmarks.networks import in_torch
from benchmarks.networks.run import Peer
from benchmarks.networks.sketch import Network


def through_onnxruntime(network: Network, threads: int) -> Way:
    if network.dtype != "f32":
        raise Refused("no bf16 convolution on the CPU")
    return onnx_runtime.model_way(in_torch.onnx_model(network), network.x, threads, bound=True)


def through_openvino(network: Network, threads: int) -> Way:
    model = open_vino.read(in_torch.onnx_model(network))
    return open_vino.model_way(model, False, network.x, network.dtype, threads, bound=True)


def through_pytorch(network: Network, threads: int) -> Way:
    """Eager, in channels_last."""
    return _pytorch(_model(network), network, threads)


def through_inductor(network: Network, threads: int) -> Way:
    """Compiled with frozen weights, in channels_last."""
    way = _pytorch(torch.compile(_model(network)), network, threads)
    with torch._inductor.config.patch(freezing=True):
        way.run()
    return way


def _model(network: Network) -> in_torch.Model:
    return in_torch.Model(network).to(DTYPES[network.dtype], memory_format=torch.channels_last)


def _pytorch(model: Callable[[torch.Tensor], torch.Tensor], network: Network, threads: int) -> Way:
    torch.set_num_threads(threads)
    x = torch.tensor(channels_first(network.x)).to(DTYPES[network.dtype], memory_format=torch.channels_last)

    def run() -> torch.Tensor:
        with torch.inference_mode():
            return model(x)

    def output() -> Array:
        return channels_last(run().float().contiguous().numpy())

    return Way(run, output)


PEERS: dict[str, Peer] = {
    "onnxruntime": through_onnxruntime,
    "OpenVINO": through_openvino,
    "PyTorch": through_pytorch,
    "PyTorch compiled": through_inductor,
}
