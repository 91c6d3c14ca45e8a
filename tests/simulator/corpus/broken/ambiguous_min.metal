// The smaller of a uint and an int.
// stage: type
// says: ambiguous

[[kernel]] void custom_kernel_ambiguous_min(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  y[i] = float(min(i, 3));  // <-
}
