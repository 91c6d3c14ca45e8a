// Threadgroups of more threads than there can be.
// stage: check
// says: 1024
// grid: 2048 1 1
// threadgroup: 2048 1 1
// input: x float32 2048
// output: y float32 2048

[[kernel]] void custom_kernel_too_many_threads(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint g = thread_position_in_grid.x;
  y[g] = x[g];
}
