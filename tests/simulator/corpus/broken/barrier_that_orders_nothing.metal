// A barrier whose flags leave threadgroup memory unordered.
// stage: lint
// says: orders no memory

[[kernel]] void custom_kernel_barrier_that_orders_nothing(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint i = thread_position_in_grid.x;

  threadgroup float tile[64];
  uint l = thread_index_in_threadgroup;
  tile[l] = x[i];
  threadgroup_barrier(mem_flags::mem_none);  // <-
  y[i] = tile[63u - l];
}
