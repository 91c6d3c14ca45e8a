// A bfloat that takes the float sum of itself and a float.
// stage: type
// says: only explicitly

[[kernel]] void custom_kernel_bfloat_sum_with_float(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  bfloat16_t v = bfloat16_t(x[i]);
  v = v + 1.0f;  // <-
  y[i] = float(v);
}
