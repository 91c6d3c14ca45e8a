// An unroll pragma with a declaration between it and its loop.
// stage: lint
// says: directly before its loop

[[kernel]] void custom_kernel_unroll_pragma_without_loop(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;

#pragma clang loop unroll(full)  // <-
  float sum = 0.0f;
  for (uint j = 0u; j < 4u; ++j) sum += x[j];
  y[i] = sum;
}
