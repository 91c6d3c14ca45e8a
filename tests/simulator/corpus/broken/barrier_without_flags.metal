// A barrier that does not say what it orders.
// stage: type
// says: requires 1 argument

[[kernel]] void custom_kernel_barrier_without_flags(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  threadgroup_barrier();  // <-
  y[i] = x[i];
}
