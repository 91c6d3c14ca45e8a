// A bfloat that becomes half by itself.
// stage: type
// says: cannot initialize

[[kernel]] void custom_kernel_half_from_bfloat(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  bfloat16_t v = bfloat16_t(x[i]);
  half h = v;  // <-
  y[i] = float(h);
}
