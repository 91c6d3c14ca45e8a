// The maximum of floats by compare and exchange on their bits.
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 128
// output: y uint32 1
// init: 0
// expects: np.abs(x).astype(np.float32).max().view(np.uint32).astype(np.float32)

[[kernel]] void custom_kernel_largest_by_exchange(
  const device float* x [[buffer(0)]],
  device atomic<uint>* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  uint bits = as_type<uint>(metal::fabs(x[g]));
  uint seen = atomic_load_explicit(&y[0], memory_order_relaxed);
  while (bits > seen && !atomic_compare_exchange_weak_explicit(&y[0], &seen, bits, memory_order_relaxed, memory_order_relaxed)) {
  }
}
