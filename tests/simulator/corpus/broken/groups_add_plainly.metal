// Threadgroups add their sums to one value without atomics.
// stage: check
// says: race
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 128
// output: y float32 1
// init: 0

[[kernel]] void custom_kernel_groups_add_plainly(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]],
  uint thread_index_in_simdgroup [[thread_index_in_simdgroup]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  float sum = simd_sum(x[g]);
  if (thread_index_in_simdgroup == 0u) y[0] += sum;  // <-
}
