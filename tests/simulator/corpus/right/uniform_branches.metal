// Barriers and sums in branches that all threads of a threadgroup take alike.
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 128
// output: y float32 128
// expects: np.concatenate([x[:64] / 32, x[:63:-1]])

[[kernel]] void custom_kernel_uniform_branches(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint3 threadgroup_position_in_grid [[threadgroup_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  threadgroup float tile[64];
  bool second = threadgroup_position_in_grid.x == 1u;
  tile[l] = x[g];
  if (second) {
    threadgroup_barrier(mem_flags::mem_threadgroup);
    y[g] = tile[63u - l];
  } else {
    y[g] = tile[l] / simd_sum(1.0f);
  }
}
