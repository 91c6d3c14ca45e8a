// A threadgroup array with an initialiser.
// stage: type
// says: cannot have an initializer

[[kernel]] void custom_kernel_threadgroup_initialiser(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  threadgroup float tile[4] = {0.0f, 0.0f, 0.0f, 0.0f};  // <-
  y[i] = tile[0];
}
