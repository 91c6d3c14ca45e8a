// The totals of simdgroups are read while the next chunk's are written.
// stage: check
// says: race
// grid: 64 1 1
// threadgroup: 64 1 1
// input: x float32 128
// output: y float32 128

[[kernel]] void custom_kernel_scan_without_second_barrier(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]],
  uint thread_index_in_simdgroup [[thread_index_in_simdgroup]],
  uint simdgroup_index_in_threadgroup [[simdgroup_index_in_threadgroup]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  threadgroup float totals[2];
  float carry = 0.0f;
  for (uint chunk = 0u; chunk < 2u; chunk++) {
    float value = x[chunk * 64u + l];
    float inclusive = simd_prefix_inclusive_sum(value);
    if (thread_index_in_simdgroup == 31u) totals[simdgroup_index_in_threadgroup] = inclusive;  // <-
    threadgroup_barrier(mem_flags::mem_threadgroup);
    float before = simdgroup_index_in_threadgroup == 1u ? totals[0] : 0.0f;  // <-
    y[chunk * 64u + l] = carry + before + inclusive;
    carry += totals[0] + totals[1];  // <-
  }
}
