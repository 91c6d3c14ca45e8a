"""Which kernel and tile MLX 0.32 runs for a convolution on a Mac: the rules of mlx/backend/metal/conv.cpp.

Only the "steel" kernels can be run here. For what MLX runs instead of one, `choose` names it and gives the steel kernel
that comes nearest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import gcd, prod

from convjit.geometry import Geometry

BK = 16

CONV_2D = "implicit_gemm_conv_2d"
GENERAL = "implicit_gemm_conv_2d_general"
CONV_3D = "implicit_gemm_conv_3d"


@dataclass(frozen=True, slots=True)
class Choice:
    """A steel kernel and its template arguments.

    Attributes:
        kernel: its name.
        bm, bn: output pixels and channels of a threadgroup.
        wm, wn: its simdgroups along both.
        channels: the input channels of a group that the loader is specialised on; 0 for any number.
        small_filter: is the loader specialised on kernels of at most 16 an axis?
        pad_in, pad_out: channels of zeros that are added to each group by copies before the kernel runs.
        spread: are zeros put between the elements of the input by a copy before the kernel runs?
        instead: what MLX runs where it is not this; None if it is.
    """

    kernel: str
    bm: int
    bn: int
    wm: int = 2
    wn: int = 2
    channels: int = 0
    small_filter: bool = False
    pad_in: int = 0
    pad_out: int = 0
    spread: bool = False
    instead: str | None = None


def choose(geometry: Geometry) -> Choice:
    """What MLX runs for a convolution of contiguous arrays."""
    window = geometry.window
    in_group, out_group = _group(geometry)
    if geometry.rank == 3:
        return _choose_3d(geometry)
    if geometry.rank == 2:
        return _choose_2d(geometry)
    plane = as_2d(geometry)
    is_depthwise = window.groups == geometry.in_channels == geometry.out_channels
    is_plain = plane.window.strides == plane.window.kernel_dilation == (1, 1) and window.pad_lo == (0,)
    if is_depthwise and is_plain and not window.transposed and not window.flip:
        return _nearest(plane, "depthwise_conv_1d")
    if not window.transposed and _fits_in(in_group) and _fits_out(out_group):
        return _choose_2d(plane)
    return _nearest(plane, "unfold + GEMM")


def as_2d(geometry: Geometry) -> Geometry:
    """A 1D convolution as one of width 1, which is how MLX runs it."""
    w = geometry.window
    window = replace(
        w,
        strides=(*w.strides, 1),
        pad_lo=(*w.pad_lo, 0),
        pad_hi=(*w.pad_hi, 0),
        kernel_dilation=(*w.kernel_dilation, 1),
        input_dilation=(*w.input_dilation, 1),
    )
    return replace(geometry, in_size=(*geometry.in_size, 1), kernel=(*geometry.kernel, 1), window=window)


def _choose_2d(geometry: Geometry) -> Choice:
    window, (in_group, out_group) = geometry.window, _group(geometry)
    stride_1, dilation_1 = window.strides == (1, 1), window.kernel_dilation == (1, 1)
    if window.groups > 1:
        if window.transposed:
            return _nearest(geometry, "unfold + grouped GEMM")
        small = max(geometry.kernel) <= 7 and max(window.strides) <= 2 and dilation_1
        if in_group == out_group == 1 and small and geometry.in_channels % 16 == 0:
            return _nearest(geometry, "depthwise_conv_2d")
        if _fits_in(in_group) and _fits_out(out_group):
            return _implicit_2d(geometry)
        return _nearest(geometry, "unfold + grouped GEMM")

    plain = stride_1 and dilation_1 and not window.transposed and not window.flip
    large = geometry.batch * prod(geometry.in_size) >= 4096 and in_group + out_group >= 256
    if plain and geometry.kernel == (3, 3) and in_group % 32 == out_group % 32 == 0 and large:
        return _nearest(geometry, "winograd_conv_2d")
    out_large = pixels(geometry) >= 256
    specialised = _fits_in(in_group) and _fits_out(out_group)
    worth_padding = stride_1 and out_large and _fits_out(out_group) and prod(geometry.kernel) >= 9
    if not window.transposed and not specialised and worth_padding:
        return _implicit_2d(geometry, pad_in=-in_group % 16)
    if not window.transposed and specialised:
        return _implicit_2d(geometry)
    if in_group % 16 == out_group % 16 == 0 or out_large:
        return _general(geometry)
    return _nearest(geometry, "unfold + GEMM")


def _choose_3d(geometry: Geometry) -> Choice:
    window, (in_group, out_group) = geometry.window, _group(geometry)
    if window.groups > 1:
        return _padded(geometry, "nothing, but raises")
    if window.transposed:
        return _padded(geometry, "unfold + GEMM")
    if in_group % 16 or not _fits_out(out_group):
        return _implicit_3d(geometry, pad_in=-in_group % 16, pad_out=-out_group % 16)
    one_plane_at_a_time = window.strides[0] == window.kernel_dilation[0] == 1 and window.pad_lo[0] == 0
    if geometry.batch == 1 and geometry.kernel[0] <= 7 and one_plane_at_a_time:
        return _padded(geometry, "2D convolutions of planes, added up")
    return _implicit_3d(geometry)


def _nearest(geometry: Geometry, instead: str) -> Choice:
    """The 2D steel kernel that can compute it."""
    window, (in_group, out_group) = geometry.window, _group(geometry)
    if window.groups > 1:
        return _padded(geometry, instead)
    specialised = _fits_in(in_group) and _fits_out(out_group)
    chosen = _implicit_2d(geometry) if specialised and not window.transposed else _general(geometry)
    return replace(chosen, instead=instead)


def _padded(geometry: Geometry, instead: str) -> Choice:
    """An implicit GEMM on copies of what it cannot take as it is."""
    in_group, out_group = _group(geometry)
    takes_in = in_group % 16 == 0 or (geometry.rank == 2 and in_group <= 4)
    implicit = _implicit_2d if geometry.rank == 2 else _implicit_3d
    pad_in, pad_out = 0 if takes_in else -in_group % 16, 0 if _fits_out(out_group) else -out_group % 16
    return replace(implicit(geometry, pad_in, pad_out), spread=geometry.window.transposed, instead=instead)


def _implicit_2d(geometry: Geometry, pad_in: int = 0, pad_out: int = 0) -> Choice:
    in_group, _ = _group(geometry)
    channels = in_group if in_group <= 4 else 0
    small_filter = not channels and max(geometry.kernel) <= 16
    return replace(_tiles(CONV_2D, geometry, pad_in, pad_out), channels=channels, small_filter=small_filter)


def _implicit_3d(geometry: Geometry, pad_in: int = 0, pad_out: int = 0) -> Choice:
    return replace(_tiles(CONV_3D, geometry, pad_in, pad_out), small_filter=max(geometry.kernel) <= 16)


def _tiles(kernel: str, geometry: Geometry, pad_in: int, pad_out: int) -> Choice:
    in_group, out_group = _group(geometry)
    bm = 64 if pixels(geometry) >= 8192 and in_group + pad_in >= 64 else 32
    if out_group + pad_out <= 16:
        return Choice(kernel, bm, 8, 4, 1, pad_in=pad_in, pad_out=pad_out)
    return Choice(kernel, bm, 64 if bm == 64 or out_group + pad_out >= 64 else 32, pad_in=pad_in, pad_out=pad_out)


def _general(geometry: Geometry) -> Choice:
    window = geometry.window
    phases = [d // gcd(d, s) for d, s in zip(window.input_dilation, window.strides, strict=True)]
    rows = geometry.batch * prod(-(-o // p) for o, p in zip(geometry.out_size, phases, strict=True))
    bm = 64 if rows >= 8192 and geometry.in_channels >= 64 else 32
    return Choice(GENERAL, bm, 64 if bm == 64 and geometry.out_channels >= 64 else 32)


def pixels(geometry: Geometry) -> int:
    """Output pixels: the rows of the implicit GEMM."""
    return geometry.batch * prod(geometry.out_size)


def _group(geometry: Geometry) -> tuple[int, int]:
    groups = geometry.window.groups
    return geometry.in_channels // groups, geometry.out_channels // groups


def _fits_in(channels: int) -> bool:
    return channels <= 4 or channels % 16 == 0


def _fits_out(channels: int) -> bool:
    return channels <= 16 or channels % 16 == 0
