// A stored simdgroup matrix is read element by element without a barrier.
// stage: check
// says: race
// grid: 32 1 1
// threadgroup: 32 1 1
// input: x float32 8 8
// output: y float32 8 8

[[kernel]] void custom_kernel_matrix_stored_then_read(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint thread_index_in_simdgroup [[thread_index_in_simdgroup]]) {
  uint lane = thread_index_in_simdgroup;
  threadgroup float tile[64];
  simdgroup_matrix<float, 8, 8> m;
  simdgroup_load(m, x, 8);
  simdgroup_store(m, tile, 8);  // <-
  y[lane] = tile[lane];  // <-
  y[lane + 32u] = tile[lane + 32u];  // <-
}
