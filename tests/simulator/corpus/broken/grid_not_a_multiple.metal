// A grid that leaves the last threadgroup incomplete.
// stage: check
// says: not a multiple
// grid: 100 1 1
// threadgroup: 64 1 1
// input: x float32 100
// output: y float32 100

[[kernel]] void custom_kernel_grid_not_a_multiple(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint g = thread_position_in_grid.x;
  y[g] = x[g];
}
