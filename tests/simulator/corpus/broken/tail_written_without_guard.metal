// Reads of the tail are guarded, writes are not.
// stage: check
// says: out of bounds
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 100
// output: y float32 100

[[kernel]] void custom_kernel_tail_written_without_guard(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  float v = g < 100u ? x[g] : 0.0f;
  y[g] = v * 2.0f;  // <-
}
