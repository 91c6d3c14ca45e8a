// A writable variable at program scope.
// stage: type
// says: constant address space

float cj_offset = 1.0f;  // <-

[[kernel]] void custom_kernel_program_scope_variable(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  y[i] = x[i] + cj_offset;
}
