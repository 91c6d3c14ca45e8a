// A table at program scope whose value is no constant.
// stage: lint
// says: constexpr

inline float cj_one() { return 1.0f; }
constant float cj_scale = cj_one();  // <-

[[kernel]] void custom_kernel_initialiser_calls_a_function(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  y[i] = x[i] * cj_scale;
}
