// A tile of two dimensions read behind the end of a row, within the tile.
// stage: check
// says: out of bounds
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 128
// output: y float32 128

[[kernel]] void custom_kernel_inner_extent_overrun(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  threadgroup float tile[4][16];
  tile[l / 16u][l % 16u] = x[g];
  threadgroup_barrier(mem_flags::mem_threadgroup);
  y[g] = l < 48u ? tile[l / 16u][l % 16u + 1u] : 0.0f;  // <-
}
