// A function that Metal's library has already.
// stage: type
// says: ambiguous

inline float min(float a, float b) { return a < b ? a : b; }

[[kernel]] void custom_kernel_shadowed_library_function(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  y[i] = min(x[i], 1.0f);  // <-
}
