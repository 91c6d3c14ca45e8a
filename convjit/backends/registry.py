"""Backends by name."""

from __future__ import annotations

from functools import cache

import mlx.core as mx

from convjit.backends import Backend, BackendError

NAMES = ("cpu", "metal", "simulator")


@cache
def get(name: str) -> Backend:
    """The backend of this name; one instance a process.

    Raises:
        BackendError: if there is no such backend, or it cannot run on this machine.
    """
    if name == "cpu":
        from convjit.backends.cpu import CpuBackend

        return CpuBackend()
    if name == "metal":
        from convjit.backends.metal import MetalBackend

        if not mx.metal.is_available():
            raise BackendError("backend 'metal' needs a Mac with Metal; backend='simulator' runs the same kernels here")
        return MetalBackend()
    if name == "simulator":
        from convjit.backends.simulator import SimulatorBackend

        return SimulatorBackend()
    raise BackendError(f"there is no backend {name!r}; convjit has {', '.join(map(repr, NAMES))}")
