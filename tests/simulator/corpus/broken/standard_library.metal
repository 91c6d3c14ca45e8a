// C++'s own library instead of Metal's.
// stage: lint
// says: std::

[[kernel]] void custom_kernel_standard_library(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  y[i] = std::max(x[i], 0.0f);  // <-
}
