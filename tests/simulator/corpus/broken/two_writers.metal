// Two threads write each value.
// stage: check
// says: race
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 128
// output: y float32 64

[[kernel]] void custom_kernel_two_writers(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  y[g / 2u] = x[g / 2u];  // <-
}
