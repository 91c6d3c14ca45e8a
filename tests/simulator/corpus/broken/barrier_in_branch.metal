// Only half of the threads reach a barrier.
// stage: check
// says: barrier
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 128
// output: y float32 128

[[kernel]] void custom_kernel_barrier_in_branch(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  threadgroup float tile[64];
  tile[l] = x[g];
  if (l < 32u) threadgroup_barrier(mem_flags::mem_threadgroup);  // <-
  y[g] = tile[l];
}
