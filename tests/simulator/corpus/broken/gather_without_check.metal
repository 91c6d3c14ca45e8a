// Indices read from memory that lead outside of the table.
// stage: check
// says: out of bounds
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x int32 128
// input: table float32 100
// output: y float32 128

[[kernel]] void custom_kernel_gather_without_check(
  const device int* x [[buffer(0)]],
  const device float* table [[buffer(1)]],
  device float* y [[buffer(2)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  y[g] = table[x[g]];  // <-
}
