// A kernel with two outputs forgets one of them.
// stage: check
// says: never written
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 128
// output: y float32 128
// output: z float32 128

[[kernel]] void custom_kernel_second_output_not_written(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  device float* z [[buffer(2)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  if (x[g] > 100.0f) z[g] = x[g];
  y[g] = x[g];
}
