"""What was measured of one network."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

from benchmarks.layers.network import Dtype
from benchmarks.layers.record import MLX, OURS


@dataclass(frozen=True, slots=True)
class Record:
    """One network.

    Attributes:
        network: its name.
        title: what it is, in words.
        shape: of the input: images, height, width, channels.
        dtype: "f32" or "bf16".
        flops: of all convolutions and linear layers.
        kernels, plain: steps of convjit's program: kernels, and ops that are plain MLX.
        peak: floating-point operations a second that the machine can do, measured in the same run.
        others: CPUs that other processes kept busy meanwhile: figures are good where it is near 0.
        seconds: of a call, by engine; that of convjit is "convjit", and "convjit f32" where the type is another; that
            of plain MLX is "MLX".
        differences: of an engine's result to convjit's, relative to the largest.
        refused: why an engine has no time.
    """

    network: str
    title: str
    shape: tuple[int, int, int, int]
    dtype: Dtype
    flops: int
    kernels: int
    plain: int
    peak: float
    others: float
    seconds: Mapping[str, float]
    differences: Mapping[str, float]
    refused: Mapping[str, str]

    @property
    def key(self) -> Hashable:
        return self.network, tuple(self.shape), self.dtype

    @property
    def ratio(self) -> float | None:
        """How many times as fast as the fastest engine that is not MLX convjit is."""
        peers = [s for name, s in self.seconds.items() if name != MLX and not name.startswith(OURS)]
        return min(peers) / self.seconds[OURS] if peers else None
