// Rows are addressed with the length that they have after padding.
// stage: check
// says: out of bounds
// grid: 64 1 1
// threadgroup: 64 1 1
// input: x float32 6 10
// output: y float32 6 10

[[kernel]] void custom_kernel_wrong_row_length(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  uint row = g / 10u, column = g % 10u;
  if (row >= 6u) return;
  y[g] = x[row * 12u + column];  // <-
}
