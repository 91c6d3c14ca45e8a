// A stencil of three over a tile in threadgroup memory that lacks its last halo value.
// stage: check
// says: out of bounds
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 128
// output: y float32 128

[[kernel]] void custom_kernel_halo_off_by_one(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  threadgroup float tile[65];
  tile[l + 1u] = x[g];
  if (l == 0u) tile[0] = g > 0u ? x[g - 1u] : 0.0f;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  y[g] = tile[l] + tile[l + 1u] + tile[l + 2u];  // <-
}
