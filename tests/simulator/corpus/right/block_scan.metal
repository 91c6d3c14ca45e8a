// A prefix sum over a threadgroup: in simdgroups, then over their totals.
// grid: 256 1 1
// threadgroup: 128 1 1
// input: x float32 256
// output: y float32 256
// expects: np.cumsum(x.reshape(-1,128),1).reshape(-1)

[[kernel]] void custom_kernel_block_scan(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]],
  uint thread_index_in_simdgroup [[thread_index_in_simdgroup]],
  uint simdgroup_index_in_threadgroup [[simdgroup_index_in_threadgroup]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  threadgroup float totals[4];
  float inclusive = simd_prefix_inclusive_sum(x[g]);
  if (thread_index_in_simdgroup == 31u) totals[simdgroup_index_in_threadgroup] = inclusive;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  float before = 0.0f;
  for (uint i = 0u; i < simdgroup_index_in_threadgroup; i++) before += totals[i];
  y[g] = before + inclusive;
}
