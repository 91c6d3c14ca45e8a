"""One network, measured: convjit, the peers, plain MLX."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import convjit
from benchmarks.layers.engines import Engines, compare, in_short, mlx_way
from benchmarks.layers.network import Way
from benchmarks.layers.peak import flops_per_second
from benchmarks.layers.record import MLX, OURS
from benchmarks.layers.timing import few_calls, interleaved
from benchmarks.networks.in_mlx import model_and_input
from benchmarks.networks.record import Record
from benchmarks.networks.sketch import Network
from benchmarks.networks.steps import counts
from convjit.backends.cpu import CpuBackend

SAME = {"f32": 1e-4, "bf16": 5e-2}
"""How far an engine's result may be from ours, relative to the largest: more is another network."""

Peer = Callable[[Network, int], Way]
"""(network, threads) -> a way to run it. Whatever it raises tells why this engine does not."""


def measured(
    name: str,
    network: Network,
    backend: CpuBackend,
    peers: Mapping[str, Peer],
    rounds: int,
    with_mlx: bool,
    tell: Callable[[str], None],
) -> Record:
    """Make, compare and time everything that runs a network.

    Args:
        name: of the network.
        network: what to run.
        backend: convjit's, for its threads and the machine's peak.
        peers: the other engines by name.
        rounds: turns of each engine.
        with_mlx: is plain MLX measured? It takes seconds.
        tell: called with what is being done.

    Raises:
        CompileError: if convjit cannot compile a convolution of it.
    """
    model, x = model_and_input(network)
    fast = convjit.compile(model, backend="cpu", fallback="error")
    tell(OURS)
    ours = mlx_way(fast, x)
    expected = ours.output()
    threads = backend._runtime.threads
    engines, differences = Engines(), dict[str, float]()
    engines.add(OURS, lambda: ours)
    if network.dtype != "f32":
        peers = {f"{OURS} f32": _in_f32, **peers}
    for peer, make in peers.items():
        tell(peer)

        def accept(way: Way, peer: str = peer) -> None:
            differences[peer] = compare(way.output(), expected, SAME[network.dtype])

        engines.add(peer, lambda make=make: make(network, threads), accept)
    tell("timing")
    peak = flops_per_second(backend._toolchain, threads)
    seconds, others = interleaved({n: way.run for n, way in engines.ways.items()}, rounds)
    peak = max(peak, flops_per_second(backend._toolchain, threads))
    if with_mlx:
        tell(MLX)
        plain = mlx_way(model, x)
        try:
            differences[MLX] = compare(plain.output(), expected, SAME[network.dtype])
            seconds[MLX] = few_calls(plain.run)
        except Exception as error:
            engines.refused[MLX] = in_short(error)
    steps = counts(fast)
    return Record(
        name,
        network.architecture.title,
        network.x.shape,
        network.dtype,
        network.flops,
        steps.kernels,
        steps.plain,
        peak,
        others,
        seconds,
        differences,
        engines.refused,
    )


def _in_f32(network: Network, threads: int) -> Way:
    model, x = model_and_input(replace(network, dtype="f32"))
    return mlx_way(convjit.compile(model, backend="cpu", fallback="error"), x)
