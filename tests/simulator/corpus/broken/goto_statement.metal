// A jump out of nested loops.
// stage: lint
// says: goto

[[kernel]] void custom_kernel_goto_statement(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;

  for (uint j = 0u; j < 4u; ++j) {
    if (x[j] > 1.0f) goto done;  // <-
  }
  y[i] = x[i];
  done:
  return;
}
