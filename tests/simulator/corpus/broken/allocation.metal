// Memory from the heap.
// stage: type
// says: new

[[kernel]] void custom_kernel_allocation(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  thread float* p = new float[2];  // <-
  y[i] = p[0];
}
