// An atomic addition to a plain float.
// stage: type
// says: no matching function

[[kernel]] void custom_kernel_atomic_on_plain_memory(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  atomic_fetch_add_explicit(y + i, x[i], memory_order_relaxed);  // <-
}
