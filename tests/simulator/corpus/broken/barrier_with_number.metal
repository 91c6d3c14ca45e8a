// A barrier with a number for its flags.
// stage: type
// says: mem_flags

[[kernel]] void custom_kernel_barrier_with_number(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  threadgroup_barrier(2);  // <-
  y[i] = x[i];
}
