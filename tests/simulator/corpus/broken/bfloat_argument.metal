// A float handed to a function that takes bfloat.
// stage: type
// says: only explicitly

inline float cj_twice(bfloat16_t v) { return 2.0f * float(v); }

[[kernel]] void custom_kernel_bfloat_argument(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  y[i] = cj_twice(x[i]);  // <-
}
