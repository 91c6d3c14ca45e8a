// A threadgroup array in an inner block.
// stage: lint
// says: outermost block

[[kernel]] void custom_kernel_threadgroup_array_in_block(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint3 threadgroup_position_in_grid [[threadgroup_position_in_grid]]) {
  uint i = thread_position_in_grid.x;

  if (threadgroup_position_in_grid.x == 0u) {
    threadgroup float tile[64];  // <-
    tile[i % 64u] = x[i];
    y[i] = tile[i % 64u];
  }
}
