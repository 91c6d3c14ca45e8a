// A running sum of a threadgroup: of each simdgroup, then of the simdgroups before.
// grid: 64 1 1
// threadgroup: 64 1 1
// input: x float32 64
// output: y float32 64
// expects: x.cumsum()

[[kernel]] void custom_kernel_prefix_sum(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]],
  uint thread_index_in_simdgroup [[thread_index_in_simdgroup]],
  uint simdgroup_index_in_threadgroup [[simdgroup_index_in_threadgroup]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  threadgroup float total[2];
  float sum = simd_prefix_inclusive_sum(x[g]);
  if (thread_index_in_simdgroup == 31u) total[simdgroup_index_in_threadgroup] = sum;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  y[g] = simdgroup_index_in_threadgroup > 0u ? sum + total[0] : sum;
}
