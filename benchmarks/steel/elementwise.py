"""The kernel that `mx.compile` writes for silu(y + bias) + residual: what MLX runs behind a convolution.

The bias is broadcast, so MLX takes its strided kernel; the axes collapse to pixels and channels, and each thread
computes one element. After mlx/backend/metal/compiled.cpp.
"""

from __future__ import annotations

from math import prod

import mlx.core as mx

from benchmarks.steel.launch import METAL_TYPES
from convjit.simulator import Launch

_OPERATIONS = """
struct Add {
  template <typename T> T operator()(T x, T y) thread { return x + y; }
};
struct Multiply {
  template <typename T> T operator()(T x, T y) thread { return x * y; }
};
struct Sigmoid {
  template <typename T> T operator()(T x) thread {
    auto y = 1.0f / (1.0f + metal::precise::exp(metal::abs(float(x))));
    return T(x < T(0) ? y : 1.0f - y);
  }
};
"""


def bias_silu_residual(y: mx.array, bias: mx.array, residual: mx.array) -> tuple[Launch, list[mx.array]]:
    """The kernel and its inputs.

    Args:
        y: the convolution's result, (N, *spatial, channels), of which the first O channels are meant.
        bias: (O,).
        residual: (N, *spatial, O).
    """
    t = METAL_TYPES[y.dtype]
    channels, rows = bias.size, prod(y.shape[:-1])
    text = f"""{_OPERATIONS}
[[kernel]] void compiled(
    device const {t}* A [[buffer(0)]],
    device const {t}* B [[buffer(1)]],
    device const {t}* C [[buffer(2)]],
    constant const int64_t* in_strides [[buffer(3)]],
    device {t}* H [[buffer(4)]],
    uint3 pos [[thread_position_in_grid]],
    uint3 grid [[threads_per_grid]]) {{
  uint index = pos.x + grid.x * (pos.y + uint(grid.y) * pos.z);
  uint index_A = elem_to_loc_2<uint>({{pos.x, pos.y}}, in_strides + 0);
  uint index_B = elem_to_loc_2<uint>({{pos.x, pos.y}}, in_strides + 2);
  uint index_C = elem_to_loc_2<uint>({{pos.x, pos.y}}, in_strides + 4);
  {t} tmp_A = A[index_A];
  {t} tmp_B = B[index_B];
  {t} tmp_C = C[index_C];
  {t} tmp_D = Add()(tmp_A, tmp_B);
  {t} tmp_E = Sigmoid()(tmp_D);
  {t} tmp_F = Multiply()(tmp_D, tmp_E);
  {t} tmp_G = Add()(tmp_F, tmp_C);
  H[index] = tmp_G;
}}
"""
    strides = mx.array([y.shape[-1], 1, 0, 1, channels, 1], mx.int64)
    launch = Launch(
        name="compiled",
        text=text,
        grid=(channels, rows, 1),
        threadgroup=_block(channels, rows),
        inputs=("y", "bias", "residual", "in_strides"),
        outputs=(("result", residual.shape, y.dtype),),
    )
    return launch, [y, bias, residual, strides]


def _block(width: int, height: int) -> tuple[int, int, int]:
    """MLX's threadgroup of up to 1024 threads: powers of two, grown in turn."""
    block = [1, 1]
    while True:
        before = prod(block)
        for axis, extent in enumerate((width, height)):
            if 2 * block[axis] <= extent and prod(block) < 1024:
                block[axis] *= 2
        if prod(block) == before:
            return block[0], block[1], 1
