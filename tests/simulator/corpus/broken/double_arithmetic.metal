// Arithmetic in double.
// stage: lint
// says: double

[[kernel]] void custom_kernel_double_arithmetic(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  double sum = x[i];  // <-
  y[i] = float(sum);
}
