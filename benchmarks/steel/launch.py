"""One of MLX's steel convolutions as a launch for the simulator, with the parameters that MLX's host code gives it."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import gcd, prod

import mlx.core as mx

from benchmarks.steel.dispatch import BK, CONV_2D, CONV_3D, GENERAL, Choice, as_2d, pixels
from benchmarks.steel.headers import kernel_text
from convjit.geometry import Geometry
from convjit.simulator import Launch

METAL_TYPES = {mx.float32: "float", mx.float16: "float16_t", mx.bfloat16: "bfloat16_t"}

_HEADERS = {CONV_2D: "steel_conv.h", GENERAL: "steel_conv_general.h", CONV_3D: "steel_conv_3d.h"}
_POSITIONS = {
    "threadgroup_position_in_grid": "uint3",
    "thread_position_in_threadgroup": "uint3",
    "simdgroup_index_in_threadgroup": "uint",
    "thread_index_in_simdgroup": "uint",
}


@dataclass(frozen=True, slots=True)
class Prepared:
    """A kernel with its inputs.

    Attributes:
        launch: the kernel; its one output has `channels` in its last axis, in groups.
        inputs: input, weight, and parameters as bytes.
        copied_bytes: device bytes read and written by the copies that made the inputs.
    """

    launch: Launch
    inputs: list[mx.array]
    copied_bytes: int


def prepare(geometry: Geometry, choice: Choice, x: mx.array, w: mx.array) -> Prepared:
    """`choice` for `x` of shape (N, *spatial, C) and `w` of shape (O, *kernel, C / groups)."""
    plane = as_2d(geometry) if geometry.rank == 1 else geometry
    x, w = x.reshape(plane.in_shape), w.reshape(plane.weight_shape)
    given = x, w
    groups = plane.window.groups
    if choice.spread:
        x, plane = _spread(x, plane)
    if choice.pad_in:
        x, w = _with_channels(x, groups, choice.pad_in), _with_channels(w, 1, choice.pad_in)
    if choice.pad_out:
        w = _with_channels(w.T, groups, choice.pad_out).T
    plane = Geometry.of_shapes(x.shape, w.shape, plane.window)
    x, w = mx.contiguous(x), mx.contiguous(w)
    copied = sum(
        old.nbytes + old.nbytes + new.nbytes for old, new in zip(given, (x, w), strict=True) if old.size != new.size
    )
    structs, z = _parameters(plane, choice)
    tiles_m, tiles_n = _tiles(plane, choice)
    if choice.kernel != GENERAL and choice.bn != 8:
        # MLX reads whole tiles of the weight, beyond its end where they do not divide it, and stores nothing of that.
        beyond = tiles_n * choice.bn - plane.out_channels // groups
        w = mx.pad(w, [(0, beyond)] + [(0, 0)] * (w.ndim - 1))
    launch = Launch(
        name="steel_conv",
        text=_text(choice, x.dtype, aligned=plane.in_channels % BK == 0),
        grid=(32 * tiles_n, choice.wn * tiles_m, choice.wm * z),
        threadgroup=(32, choice.wn, choice.wm),
        inputs=("x", "w", *structs),
        outputs=(("y", plane.out_shape, x.dtype),),
    )
    return Prepared(launch, [x, w, *map(_bytes, structs.values())], copied)


def _text(choice: Choice, dtype: mx.Dtype, aligned: bool) -> str:
    """MLX's headers, and a kernel that instantiates one of their templates."""
    t, rank = METAL_TYPES[dtype], 3 if choice.kernel == CONV_3D else 2
    types = {"params": f"MLXConvParams<{rank}>", "gemm_params": f"ImplicitGemmConv{rank}DParams"}
    arguments: list[int | str] = [t, choice.bm, choice.bn, BK, choice.wm, choice.wn]
    if choice.kernel == GENERAL:
        types["jump_params"] = "Conv2DGeneralJumpParams"
        types["base_h"] = types["base_w"] = "Conv2DGeneralBaseInfo"
    else:
        arguments += [choice.channels] if choice.kernel == CONV_2D else []
        arguments.append(str(choice.small_filter).lower())
    parameters = [f"const device {t}* x", f"const device {t}* w"]
    parameters += [f"const constant {type}* {name}" for name, type in types.items()]
    parameters.append(f"device {t}* y")
    lines = [f"  {p} [[buffer({i})]]" for i, p in enumerate(parameters)]
    lines += [f"  {type} {name} [[{name}]]" for name, type in _POSITIONS.items()]
    passed = ", ".join(["x", "w", "y", *types, *_POSITIONS])
    instance = f"{choice.kernel}<{', '.join(map(str, arguments))}>"
    entry = "[[kernel]] void steel_conv(\n" + ",\n".join(lines) + f") {{\n  {instance}({passed});\n}}\n"
    headers = kernel_text(_HEADERS[choice.kernel])
    return headers.replace("[[function_constant(200)]]", f"= {str(aligned).lower()}") + "\n" + entry


def _parameters(geometry: Geometry, choice: Choice) -> tuple[dict[str, bytes], int]:
    """The kernel's structs (steel/conv/params.h), and the depth of its grid."""
    window, rank = geometry.window, geometry.rank
    in_group = geometry.in_channels // window.groups
    in_strides = _strides(geometry.in_shape)
    structs = {
        "params": struct.pack(
            f"@3i{7 * rank}i{3 * (rank + 2)}qi?0q",
            *(geometry.batch, geometry.in_channels, geometry.out_channels),
            *(*geometry.in_size, *geometry.kernel, *geometry.out_size),
            *(*window.strides, *window.pad_lo, *window.kernel_dilation, *window.input_dilation),
            *(*in_strides, *_strides(geometry.weight_shape), *_strides(geometry.out_shape)),
            *(window.groups, window.flip),
        )
    }
    tiles_m, tiles_n = _tiles(geometry, choice)
    k = prod(geometry.kernel) * in_group
    iterations = _k_iterations(geometry, choice)
    jumps = _jumps(geometry, in_strides)
    gemm = (pixels(geometry), geometry.out_channels // window.groups, k, iterations, *jumps, tiles_n, tiles_m, 0)
    structs["gemm_params"] = _ints(gemm)
    if choice.kernel != GENERAL:
        return structs, window.groups
    out_jumps = _phases(geometry)
    weight_jumps = [d // gcd(d, k) for d, k in zip(window.input_dilation, window.kernel_dilation, strict=True)]
    adjusted = [-(-o // j) for o, j in zip(geometry.out_size, out_jumps, strict=True)]
    structs["jump_params"] = _ints(
        (*weight_jumps, *out_jumps, *adjusted, prod(adjusted), geometry.batch * prod(adjusted))
    )
    for axis, name in enumerate(("base_h", "base_w")):
        structs[name] = _ints(_bases(geometry, axis, out_jumps[axis], weight_jumps[axis]))
    return structs, prod(out_jumps)


def _tiles(geometry: Geometry, choice: Choice) -> tuple[int, int]:
    rows = pixels(geometry)
    if choice.kernel == GENERAL:
        rows = geometry.batch * prod(-(-o // p) for o, p in zip(geometry.out_size, _phases(geometry), strict=True))
    return -(-rows // choice.bm), -(-(geometry.out_channels // geometry.window.groups) // choice.bn)


def _phases(geometry: Geometry) -> list[int]:
    """Every how many outputs of an axis the same taps meet elements of the input."""
    window = geometry.window
    return [d // gcd(d, s) for d, s in zip(window.input_dilation, window.strides, strict=True)]


def _k_iterations(geometry: Geometry, choice: Choice) -> int:
    taps, in_group = prod(geometry.kernel), geometry.in_channels // geometry.window.groups
    if choice.kernel == GENERAL:
        return -(-in_group // BK)  # times the taps of a phase, which the kernel counts
    if choice.channels:
        return -(-taps * (in_group if in_group <= 2 else 4) // BK)
    return taps * -(-in_group // BK)


def _jumps(geometry: Geometry, in_strides: Sequence[int]) -> list[int]:
    """How far the loader moves in the input: from tap to tap of the innermost axis, on to the next tap of each outer
    axis, and from the last tap of BK channels to the first of the next."""
    window = geometry.window
    sign = -1 if window.flip else 1
    steps = [s * d for s, d in zip(in_strides[1:-1], window.kernel_dilation, strict=True)]
    back = [(k - 1) * s for k, s in zip(geometry.kernel, steps, strict=True)]
    per_axis = [sign * (steps[axis] - sum(back[axis + 1 :])) for axis in reversed(range(geometry.rank))]
    return [*per_axis, BK - sign * sum(back)]


def _bases(geometry: Geometry, axis: int, out_jump: int, weight_jump: int) -> list[int]:
    """For each phase of an axis of a dilated input: the first tap that meets an element, and how many taps do."""
    window, taps = geometry.window, geometry.kernel[axis]
    dilation, input_dilation = window.kernel_dilation[axis], window.input_dilation[axis]
    step = -dilation if window.flip else dilation
    result: list[int] = []
    for phase in range(out_jump):
        at = phase * window.strides[axis] - window.pad_lo[axis] + ((taps - 1) * dilation if window.flip else 0)
        first = next((t for t in range(taps) if (at + t * step) % input_dilation == 0), taps)
        result += [first, -(-(taps - first) // weight_jump)]
    return result


def _spread(x: mx.array, geometry: Geometry) -> tuple[mx.array, Geometry]:
    """Zeros between the elements of the input, in place of its dilation."""
    dilation = geometry.window.input_dilation
    size = tuple((n - 1) * d + 1 for n, d in zip(geometry.in_size, dilation, strict=True))
    spread = mx.zeros((geometry.batch, *size, geometry.in_channels), x.dtype)
    spread[(slice(None), *(slice(None, None, d) for d in dilation))] = x
    window = replace(geometry.window, input_dilation=(1,) * geometry.rank)
    return spread, replace(geometry, in_size=size, window=window)


def _with_channels(x: mx.array, groups: int, extra: int) -> mx.array:
    """`extra` channels of zeros behind each group of the last axis."""
    grouped = x.reshape(*x.shape[:-1], groups, x.shape[-1] // groups)
    padded = mx.pad(grouped, [(0, 0)] * (grouped.ndim - 1) + [(0, extra)])
    return padded.reshape(*x.shape[:-1], -1)


def _strides(shape: Sequence[int]) -> list[int]:
    return [prod(shape[axis + 1 :]) for axis in range(len(shape))]


def _ints(values: Sequence[int]) -> bytes:
    return struct.pack(f"@{len(values)}i", *values)


def _bytes(packed: bytes) -> mx.array:
    return mx.array(memoryview(packed)).view(mx.uint8)
