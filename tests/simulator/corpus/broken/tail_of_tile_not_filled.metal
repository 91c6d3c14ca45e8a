// Threads beyond the end leave their places of a tile unwritten, but all places are summed.
// stage: check
// says: uninitialised
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 100
// output: y float32 2

[[kernel]] void custom_kernel_tail_of_tile_not_filled(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint3 threadgroup_position_in_grid [[threadgroup_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  threadgroup float tile[64];
  if (g < 100u) tile[l] = x[g];
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (l == 0u) {
    float sum = 0.0f;
    for (uint k = 0u; k < 64u; ++k) sum += tile[k];  // <-
    y[threadgroup_position_in_grid.x] = sum;
  }
}
