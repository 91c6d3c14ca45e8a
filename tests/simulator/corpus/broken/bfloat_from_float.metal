// A float that becomes bfloat by itself.
// stage: type
// says: only explicitly

[[kernel]] void custom_kernel_bfloat_from_float(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  bfloat16_t v = x[i];  // <-
  y[i] = float(v);
}
