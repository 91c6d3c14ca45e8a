// A shared atomic counter is never set to zero.
// stage: check
// says: uninitialised
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 128
// output: y float32 128

[[kernel]] void custom_kernel_counter_not_cleared(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  threadgroup atomic<int> count;
  if (x[g] > 0.0f) atomic_fetch_add_explicit(&count, 1, memory_order_relaxed);  // <-
  threadgroup_barrier(mem_flags::mem_threadgroup);
  y[g] = float(atomic_load_explicit(&count, memory_order_relaxed));  // <-
}
