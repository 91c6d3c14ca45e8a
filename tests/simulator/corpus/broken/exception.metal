// An exception.
// stage: type
// says: exceptions

[[kernel]] void custom_kernel_exception(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  try {  // <-
    y[i] = x[i];
  } catch (...) {
  }
}
