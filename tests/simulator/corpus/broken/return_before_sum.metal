// Lanes of the tail return in front of a sum over the simdgroup.
// stage: check
// says: simd_sum
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 128
// output: y float32 100

[[kernel]] void custom_kernel_return_before_sum(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  if (g >= 100u) return;
  y[g] = x[g] / simd_sum(x[g]);  // <-
}
