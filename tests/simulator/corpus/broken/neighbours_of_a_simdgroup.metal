// Lanes of one simdgroup exchange values without a barrier, as if they ran in lockstep.
// stage: check
// says: race
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 128
// output: y float32 128

[[kernel]] void custom_kernel_neighbours_of_a_simdgroup(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  threadgroup float tile[64];
  tile[l] = x[g];  // <-
  y[g] = tile[l ^ 1u];  // <-
}
