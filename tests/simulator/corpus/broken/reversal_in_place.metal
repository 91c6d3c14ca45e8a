// Reads and writes of one tile, with a barrier missing between the reads and the writes.
// stage: check
// says: race
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 128
// output: y float32 128

[[kernel]] void custom_kernel_reversal_in_place(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  threadgroup float tile[64];
  tile[l] = x[g];
  threadgroup_barrier(mem_flags::mem_threadgroup);
  float v = tile[63u - l];  // <-
  tile[l] = v;  // <-
  threadgroup_barrier(mem_flags::mem_threadgroup);
  y[g] = tile[l];
}
