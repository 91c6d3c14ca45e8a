// Tiles of 64 values, 60 apart: neighbours write the same values.
// stage: check
// says: another threadgroup
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 124
// output: y float32 124

[[kernel]] void custom_kernel_overlapping_tiles(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 threadgroup_position_in_grid [[threadgroup_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint l = thread_index_in_threadgroup;
  uint at = threadgroup_position_in_grid.x * 60u + l;
  y[at] = x[at];  // <-
}
