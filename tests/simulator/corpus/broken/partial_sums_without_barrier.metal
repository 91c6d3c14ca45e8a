// The sums of the simdgroups are read before they are known to be written.
// stage: check
// says: race
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 128
// output: y float32 2

[[kernel]] void custom_kernel_partial_sums_without_barrier(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 threadgroup_position_in_grid [[threadgroup_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]],
  uint thread_index_in_simdgroup [[thread_index_in_simdgroup]],
  uint simdgroup_index_in_threadgroup [[simdgroup_index_in_threadgroup]]) {
  uint l = thread_index_in_threadgroup;
  uint group = threadgroup_position_in_grid.x;
  threadgroup float part[2];
  float sum = simd_sum(x[group * 64u + l]);
  if (thread_index_in_simdgroup == 0u) part[simdgroup_index_in_threadgroup] = sum;  // <-
  if (l == 0u) y[group] = part[0] + part[1];  // <-
}
