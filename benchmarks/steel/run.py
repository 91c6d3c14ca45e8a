"""MLX's kernels, run: their results, and what they read and write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx

from benchmarks.steel.dispatch import Choice, choose
from benchmarks.steel.elementwise import bias_silu_residual
from benchmarks.steel.launch import prepare
from convjit.geometry import Geometry
from convjit.simulator import Counters, Execution, KernelError, Launch, execute


@dataclass(frozen=True, slots=True)
class MlxCounters:
    """What MLX does for silu(convolution + bias) + residual under `mx.compile`.

    Attributes:
        choice: the kernel and tile of the convolution.
        conv: the convolution's counters.
        elementwise: those of the one kernel behind it.
        copied_bytes: device bytes read and written by copies that pad channels before the convolution.
    """

    choice: Choice
    conv: Counters
    elementwise: Counters
    copied_bytes: int

    @property
    def exact(self) -> bool:
        """Is it what MLX runs? If not, `choice.instead` is, and this comes nearest."""
        return self.choice.instead is None

    @property
    def conv_bytes(self) -> int:
        """Device bytes of the convolution alone, with its copies."""
        return self.conv.device_bytes_read + self.conv.device_bytes_written + self.copied_bytes

    @property
    def bytes(self) -> int:
        """Device bytes of it all."""
        return self.conv_bytes + self.elementwise.device_bytes_read + self.elementwise.device_bytes_written


def convolution(geometry: Geometry, choice: Choice, x: mx.array, w: mx.array) -> mx.array:
    """The result of MLX's kernel `choice` for `x` of shape (N, *spatial, C) and `w` of shape (O, *kernel, C / groups).

    Raises:
        KernelError: if the simulator's checker finds anything.
    """
    prepared = prepare(geometry, choice, x, w)
    (y,) = _checked(prepared.launch, prepared.inputs).outputs
    groups = geometry.window.groups
    y = y.reshape(*y.shape[:-1], groups, -1)[..., : geometry.out_channels // groups]
    return y.reshape(geometry.out_shape)


def mlx_counters(geometry: Geometry, dtype: mx.Dtype, tile_for: Geometry | None = None) -> MlxCounters:
    """What MLX 0.32's kernels read and write on a Mac.

    Args:
        geometry: the convolution.
        dtype: float32, float16 or bfloat16.
        tile_for: choose kernel and tile as for this one: the convolution that `geometry` was shrunk from.

    Raises:
        KernelError: if the simulator's checker finds anything.
    """
    choice = choose(tile_for or geometry)
    x, w, bias, residual = (
        mx.random.normal(shape, key=mx.random.key(seed)).astype(dtype)
        for seed, shape in enumerate(
            (geometry.in_shape, geometry.weight_shape, (geometry.out_channels,), geometry.out_shape)
        )
    )
    prepared = prepare(geometry, choice, x, w)
    conv = _checked(prepared.launch, prepared.inputs)
    # MLX slices what padded output channels it has away, without a copy: the next kernel reads around them.
    (y,) = conv.outputs
    behind = _checked(*bias_silu_residual(y, bias, residual))
    assert conv.counters and behind.counters
    return MlxCounters(choice, conv.counters, behind.counters, prepared.copied_bytes)


def _checked(launch: Launch, inputs: Sequence[mx.array]) -> Execution:
    """A checked run. MLX lets Metal cut the threadgroups at the end of a grid, so that is no finding here."""
    done = execute(launch, inputs, check=True)
    findings = [f for f in done.findings if "is not a multiple of the threadgroup" not in f.message]
    if findings:
        raise KernelError(launch.name, launch.text, findings)
    return done
