// An array as long as a number that is not known.
// stage: type
// says: constant expression

[[kernel]] void custom_kernel_array_of_runtime_size(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  float own[i];  // <-
  own[0] = x[i];
  y[i] = own[0];
}
