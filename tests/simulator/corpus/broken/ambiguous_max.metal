// The larger of a half and a float.
// stage: type
// says: ambiguous

[[kernel]] void custom_kernel_ambiguous_max(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  half h = half(x[i]);
  y[i] = max(h, 0.0f);  // <-
}
