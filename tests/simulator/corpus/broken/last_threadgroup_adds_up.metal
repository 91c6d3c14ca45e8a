// The threadgroup that counts itself as the last reads the partial sums of others.
// stage: check
// says: race
// grid: 128 1 1
// threadgroup: 32 1 1
// input: x float32 128
// output: y float32 5
// output: count int32 1
// init: 0

[[kernel]] void custom_kernel_last_threadgroup_adds_up(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  device atomic<int>* count [[buffer(2)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]],
  uint3 threadgroup_position_in_grid [[threadgroup_position_in_grid]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  threadgroup int mine[1];
  float sum = simd_sum(x[g]);
  if (l == 0u) {
    y[threadgroup_position_in_grid.x] = sum;
    mine[0] = atomic_fetch_add_explicit(&count[0], 1, memory_order_relaxed);
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (mine[0] == 3 && l == 0u) {
    y[4] = y[0] + y[1] + y[2] + y[3];  // <-
  }
}
