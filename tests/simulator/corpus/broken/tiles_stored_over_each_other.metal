// Two simdgroups store their 8x8 tile at the same place.
// stage: check
// says: race
// grid: 64 1 1
// threadgroup: 64 1 1
// input: x float32 128
// output: y float32 64

[[kernel]] void custom_kernel_tiles_stored_over_each_other(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]],
  uint simdgroup_index_in_threadgroup [[simdgroup_index_in_threadgroup]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  simdgroup_matrix<float, 8, 8> a;
  simdgroup_load(a, x + 64u * simdgroup_index_in_threadgroup, 8);
  simdgroup_store(a, y, 8);  // <-
}
