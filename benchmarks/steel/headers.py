"""The text of MLX's Metal kernels, put together from the headers in the installed wheel as MLX does at run time."""

from __future__ import annotations

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

_INCLUDE = re.compile(r'^#include "(mlx/backend/metal/kernels/[^"]+)"\s*$', re.MULTILINE)

# These overload on address spaces, which a host does not have: the simulator has its own <mlx_preamble> instead.
_PROVIDED = ("mlx/backend/metal/kernels/utils.h", "mlx/backend/metal/kernels/steel/utils/type_traits.h")

# What of type_traits.h the kernels use.
_TRAITS = """
namespace metal {
template <class T> using pointer_element_t = remove_cv_t<remove_pointer_t<T>>;
}
"""


class HeadersMissing(RuntimeError):
    """The installed MLX has no Metal headers."""


@cache
def folder() -> Path:
    """Where the installed MLX keeps its headers.

    Raises:
        HeadersMissing: if it has none.
    """
    spec = find_spec("mlx")
    for place in (spec.submodule_search_locations or []) if spec else []:
        include = Path(place) / "include"
        if (include / "mlx/backend/metal/kernels/steel/conv/conv.h").exists():
            return include
    raise HeadersMissing("the installed mlx has no include/mlx/backend/metal/kernels/steel: its wheels have it")


@cache
def kernel_text(header: str) -> str:
    """`conv.h` and `header`, a file of steel/conv/kernels, with all that they include, each file once.

    Raises:
        HeadersMissing: if the installed MLX has no headers.
    """
    seen = set(_PROVIDED)
    steel = "mlx/backend/metal/kernels/steel/conv"
    return _TRAITS + _flat(f"{steel}/conv.h", seen) + _flat(f"{steel}/kernels/{header}", seen)


def _flat(path: str, seen: set[str]) -> str:
    if path in seen:
        return ""
    seen.add(path)
    text = (folder() / path).read_text().replace("#pragma once", "")
    return _INCLUDE.sub(lambda include: _flat(include[1], seen), text)
