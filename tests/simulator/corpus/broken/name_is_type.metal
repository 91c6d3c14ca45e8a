// A variable named as a type.
// stage: lint
// says: reserved

[[kernel]] void custom_kernel_name_is_type(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  int uint = 3;  // <-
  y[i] = float(uint);
}
