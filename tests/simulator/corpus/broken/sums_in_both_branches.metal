// Lanes of one simdgroup sum at two places, each half its own.
// stage: check
// says: simd_sum
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 128
// output: y float32 128

[[kernel]] void custom_kernel_sums_in_both_branches(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  float v = x[g];
  if (v > 0.0f) {
    v = simd_sum(v);  // <-
  } else {
    v = simd_sum(-v);  // <-
  }
  y[g] = v;
}
