// A cast from device to threadgroup memory.
// stage: type
// says: address spaces

[[kernel]] void custom_kernel_cast_between_spaces(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  const threadgroup float* p = (const threadgroup float*)x;  // <-
  y[i] = p[0];
}
