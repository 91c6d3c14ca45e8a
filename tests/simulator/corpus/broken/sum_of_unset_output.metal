// Atomic additions to an output that is not filled before.
// stage: check
// says: uninitialised
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 128
// output: y float32 1

[[kernel]] void custom_kernel_sum_of_unset_output(
  const device float* x [[buffer(0)]],
  device atomic<float>* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  atomic_fetch_add_explicit(y, x[g], memory_order_relaxed);  // <-
}
