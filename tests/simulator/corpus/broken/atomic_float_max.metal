// Metal has no atomic maximum of floats.
// stage: type
// says: no matching function
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 128
// output: y float32 1
// init: 0

[[kernel]] void custom_kernel_atomic_float_max(
  const device float* x [[buffer(0)]],
  device atomic<float>* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  atomic_fetch_max_explicit(&y[0], x[g], memory_order_relaxed);  // <-
}
