"""The engines beside which convjit is measured, each at its best settings for one call at a time.

All use as many threads as convjit and keep their own habits of spinning: whoever measures leaves a pause between two
engines, which is longer than any of them spins. "Bound" is a network with input and output where the engine wants them
and everything prepared; otherwise it is called as its users call it, NumPy arrays or tensors in and out.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from benchmarks.layers.network import Network, Way
from benchmarks.layers.peers import onnx_runtime, open_vino, pytorch

Peer = Callable[[Network, int, bool], Way]
"""(network, threads, bound) -> a way to run it. Whatever it raises tells why this engine does not."""

PEERS: dict[str, Peer] = {
    "onnxruntime": onnx_runtime.way,
    "OpenVINO NHWC": partial(open_vino.way, True),
    "OpenVINO NCHW": partial(open_vino.way, False),
    "oneDNN": pytorch.packed,
    "PyTorch channels_last": partial(pytorch.eager, True),
    "PyTorch NCHW": partial(pytorch.eager, False),
}
