// The sum takes the slot of the maximum while others still read that.
// stage: check
// says: race
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 128
// output: y float32 128

[[kernel]] void custom_kernel_softmax_sum_over_max(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  threadgroup float slot[1];
  float largest = simd_max(x[g]);
  if (l == 0u) slot[0] = largest;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  float e = metal::exp(x[g] - slot[0]);  // <-
  float sum = simd_sum(e);
  if (l == 0u) slot[0] = sum;  // <-
  threadgroup_barrier(mem_flags::mem_threadgroup);
  y[g] = e / slot[0];
}
