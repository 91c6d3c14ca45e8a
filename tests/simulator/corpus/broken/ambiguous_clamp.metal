// Bounds of another type than the value.
// stage: type
// says: ambiguous

[[kernel]] void custom_kernel_ambiguous_clamp(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  y[i] = float(clamp(int(i), 0u, 7u));  // <-
}
