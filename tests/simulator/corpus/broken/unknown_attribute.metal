// A misspelled thread attribute: MLX makes no argument of it.
// stage: type
// says: undeclared

[[kernel]] void custom_kernel_unknown_attribute(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  y[i] = x[thread_position_in_threadgrp.x];  // <-
}
