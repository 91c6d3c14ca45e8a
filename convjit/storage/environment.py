"""Where kernels run: the device, the operating system's build, and the versions that matter."""

from __future__ import annotations

import platform
import subprocess
import sys
from functools import cache
from typing import Any

import mlx.core as mx

from convjit import __version__


@cache
def os_build() -> str:
    """The build of macOS, such as "25C56", which implies its Metal compiler; elsewhere the system's release."""
    if sys.platform != "darwin":
        return platform.platform()
    done = subprocess.run(["sw_vers", "-buildVersion"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or platform.platform()


@cache
def macos_version() -> tuple[int, ...]:
    """Such as (26, 3); empty on other systems."""
    return tuple(int(part) for part in platform.mac_ver()[0].split(".") if part)


def mlx_version() -> str:
    """The installed MLX's version."""
    return mx.__version__  # pyright: ignore[reportAttributeAccessIssue]  which MLX's stubs lack


def convjit_version() -> str:
    """This package's version."""
    return __version__


def environment() -> dict[str, Any]:
    """All of it, for whoever reads a report from another machine. Plain values that JSON knows."""
    return {
        "device": dict(mx.device_info()),
        "metal": mx.metal.is_available(),
        "system": platform.platform(),
        "build": os_build(),
        "python": platform.python_version(),
        "mlx": mlx_version(),
        "convjit": convjit_version(),
    }
