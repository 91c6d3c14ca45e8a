"""What `xdsl-opt` and `convjit-opt` see of this package, through the entry point group `xdsl.universe`."""

from __future__ import annotations

from xdsl.ir import Dialect
from xdsl.universe import Universe

from convjit.passes import get_all_passes


def _conv() -> Dialect:
    from convjit.ir.conv import CONV

    return CONV


def _mlx() -> Dialect:
    from convjit.ir.mlx import MLX

    return MLX


UNIVERSE = Universe(all_dialects={"conv": _conv, "mlx": _mlx}, all_passes=get_all_passes())
