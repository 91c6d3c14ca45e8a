// The error function, which Metal has not.
// stage: lint
// says: not in Metal's library

[[kernel]] void custom_kernel_missing_library_function(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  y[i] = erf(x[i]);  // <-
}
