// A convolution of three in one dimension, over a tile with its halo.
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 100
// output: y float32 100
// expects: np.convolve(x, [0.25, 0.5, 0.25], 'same')

[[kernel]] void custom_kernel_stencil_with_halo(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  threadgroup float tile[64 + 2];
  tile[l + 1u] = g < 100u ? x[g] : 0.0f;
  if (l == 0u) tile[0] = g > 0u ? x[g - 1u] : 0.0f;
  if (l == 63u) tile[65] = g + 1u < 100u ? x[g + 1u] : 0.0f;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (g < 100u) y[g] = 0.25f * tile[l] + 0.5f * tile[l + 1u] + 0.25f * tile[l + 2u];
}
