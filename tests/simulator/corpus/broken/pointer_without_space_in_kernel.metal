// A pointer to a thread's own array without an address space.
// stage: type
// says: without an address space

[[kernel]] void custom_kernel_pointer_without_space_in_kernel(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  float own[2] = {x[i], 1.0f};
  float* p = own;  // <-
  y[i] = p[0];
}
