// The last threadgroup works beyond the end of its arrays.
// stage: check
// says: out of bounds
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 100
// output: y float32 100

[[kernel]] void custom_kernel_tail_without_guard(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  y[g] = x[g] * 2.0f;  // <-
}
