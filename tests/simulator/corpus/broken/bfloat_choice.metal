// A bfloat or a float, chosen by a condition.
// stage: type
// says: only explicitly

[[kernel]] void custom_kernel_bfloat_choice(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  bfloat16_t v = bfloat16_t(x[i]);
  v = i > 3u ? v : 0.5f;  // <-
  y[i] = float(v);
}
