// Lanes shuffle in a loop that some of them leave earlier.
// stage: check
// says: simd_shuffle_down
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 128
// output: y float32 128

[[kernel]] void custom_kernel_shuffle_in_uneven_loop(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  float v = x[g];
  for (uint k = 0u; k < 1u + l % 2u; ++k) v += simd_shuffle_down(v, 1);  // <-
  y[g] = v;
}
