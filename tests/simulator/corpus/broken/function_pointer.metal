// A pointer to a function.
// stage: type
// says: pointers to functions

inline float cj_square(float v) { return v * v; }

[[kernel]] void custom_kernel_function_pointer(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  float (*f)(float) = cj_square;  // <-
  y[i] = f(x[i]);
}
