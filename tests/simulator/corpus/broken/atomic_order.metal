// A memory order that Metal does not have.
// stage: type
// says: memory_order_seq_cst

[[kernel]] void custom_kernel_atomic_order(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  threadgroup atomic_uint count;
  atomic_store_explicit(&count, 0u, memory_order_seq_cst);  // <-
  y[i] = x[i];
}
