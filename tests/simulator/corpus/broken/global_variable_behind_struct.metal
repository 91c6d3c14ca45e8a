// A writable variable at program scope, declared with its struct.
// stage: lint
// says: outside of functions

float cj_sum[1] = {0.0f};  // <-

[[kernel]] void custom_kernel_global_variable_behind_struct(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  y[i] = x[i] + cj_sum[0];
}
