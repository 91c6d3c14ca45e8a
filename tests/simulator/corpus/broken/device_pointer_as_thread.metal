// A device pointer where a thread pointer is wanted.
// stage: type
// says: cannot initialize

[[kernel]] void custom_kernel_device_pointer_as_thread(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  const thread float* p = x + i;  // <-
  y[i] = p[0];
}
