// An unsigned countdown that never ends goes below the start.
// stage: check
// says: touches memory outside
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 128
// output: y float32 128

[[kernel]] void custom_kernel_countdown_of_unsigned(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  float sum = 0.0f;
  for (uint i = 7u; i >= 0u; i--) {
    sum += x[i];  // <-
    if (sum > 1.0e30f) break;
  }
  y[g] = sum;
}
