// A cast that drops the address space.
// stage: type
// says: without an address space

[[kernel]] void custom_kernel_cast_to_pointer_without_space(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  y[i] = *(float*)(y + i) + x[i];  // <-
}
