// An assignment to an input.
// stage: type
// says: not assignable

[[kernel]] void custom_kernel_write_to_input(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  x[i] = 1.0f;  // <-
  y[i] = x[i];
}
