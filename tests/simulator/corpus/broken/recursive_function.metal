// A function that calls itself.
// stage: lint
// says: recursion

inline float cj_power(float v, int n) {  // <-
  return n == 0 ? 1.0f : v * cj_power(v, n - 1);
}

[[kernel]] void custom_kernel_recursive_function(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  y[i] = cj_power(x[i], 3);  // <-
}
