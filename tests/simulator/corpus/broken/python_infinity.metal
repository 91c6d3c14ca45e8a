// Infinity as Python prints it.
// stage: type
// says: undeclared

[[kernel]] void custom_kernel_python_infinity(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  y[i] = max(x[i], -inf);  // <-
}
