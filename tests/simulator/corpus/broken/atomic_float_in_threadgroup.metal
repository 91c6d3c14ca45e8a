// Metal's atomic floats are in device memory only.
// stage: type
// says: no matching function
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 128
// output: y float32 128

[[kernel]] void custom_kernel_atomic_float_in_threadgroup(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  threadgroup atomic_float sum[1];
  if (l == 0u) atomic_store_explicit(&sum[0], 0.0f, memory_order_relaxed);  // <-
  threadgroup_barrier(mem_flags::mem_threadgroup);
  atomic_fetch_add_explicit(&sum[0], x[g], memory_order_relaxed);  // <-
  threadgroup_barrier(mem_flags::mem_threadgroup);
  y[g] = atomic_load_explicit(&sum[0], memory_order_relaxed);  // <-
}
