// Threads count into shared bins with plain additions.
// stage: check
// says: race
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x int32 128
// output: y int32 2 8

[[kernel]] void custom_kernel_histogram_without_atomics(
  const device int* x [[buffer(0)]],
  device int* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint3 threadgroup_position_in_grid [[threadgroup_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  threadgroup int bins[8];
  if (l < 8u) bins[l] = 0;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  bins[x[g] & 7] += 1;  // <-
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (l < 8u) y[threadgroup_position_in_grid.x * 8u + l] = bins[l];
}
