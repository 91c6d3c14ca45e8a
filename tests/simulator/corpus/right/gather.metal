// Rows of a table by their numbers, which are checked.
// grid: 64 1 1
// threadgroup: 64 1 1
// input: order int32 16
// input: table float32 16 4
// output: y float32 16 4
// expects: table[order.astype(int)]

[[kernel]] void custom_kernel_gather(
  const device int* order [[buffer(0)]],
  const device float* table [[buffer(1)]],
  device float* y [[buffer(2)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint g = thread_position_in_grid.x;
  uint row = g / 4u;
  int from = order[row];
  y[g] = from >= 0 && from < 16 ? table[from * 4 + int(g % 4u)] : 0.0f;
}
