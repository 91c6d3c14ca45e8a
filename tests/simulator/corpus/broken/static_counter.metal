// A static variable of a kernel.
// stage: lint
// says: static

[[kernel]] void custom_kernel_static_counter(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  static uint calls = 0u;  // <-
  y[i] = float(++calls);
}
