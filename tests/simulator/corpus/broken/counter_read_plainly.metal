// A counter is added to atomically and read plainly.
// stage: check
// says: race
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 128
// output: y float32 128

[[kernel]] void custom_kernel_counter_read_plainly(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  threadgroup atomic_int count[1];
  if (l == 0u) atomic_store_explicit(&count[0], 0, memory_order_relaxed);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (x[g] > 0.0f) atomic_fetch_add_explicit(&count[0], 1, memory_order_relaxed);
  y[g] = float(*(threadgroup int*)&count[0]);  // <-
}
