// Integers in the braces of a vector of floats.
// stage: type
// says: narrowed

[[kernel]] void custom_kernel_narrowing(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  int k = int(i);
  float2 v{k, k};  // <-
  y[i] = v.x + x[i];
}
