// A matrix transposed through a tile with a padded row, both sides in order.
// grid: 24 16 1
// threadgroup: 8 8 1
// input: x float32 12 20
// output: y float32 20 12
// expects: x.T

[[kernel]] void custom_kernel_transposition(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_threadgroup [[thread_position_in_threadgroup]],
  uint3 threadgroup_position_in_grid [[threadgroup_position_in_grid]]) {
  uint2 at = thread_position_in_threadgroup.xy;
  uint2 tile_at = threadgroup_position_in_grid.xy * 8u;
  threadgroup float tile[8][8 + 1];
  if (tile_at.x + at.x < 20u && tile_at.y + at.y < 12u) {
    tile[at.y][at.x] = x[(tile_at.y + at.y) * 20u + tile_at.x + at.x];
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (tile_at.y + at.x < 12u && tile_at.x + at.y < 20u) {
    y[(tile_at.x + at.y) * 12u + tile_at.y + at.x] = tile[at.x][at.y];
  }
}
