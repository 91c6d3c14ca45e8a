// A simdgroup matrix is loaded from a tile that other simdgroups still write.
// stage: check
// says: race
// grid: 64 1 1
// threadgroup: 64 1 1
// input: x float32 8 8
// output: y float32 8 8

[[kernel]] void custom_kernel_matrix_loaded_before_barrier(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]],
  uint simdgroup_index_in_threadgroup [[simdgroup_index_in_threadgroup]]) {
  uint l = thread_index_in_threadgroup;
  threadgroup float tile[64];
  tile[l] = x[l];  // <-
  simdgroup_matrix<float, 8, 8> m;
  simdgroup_load(m, tile, 8);  // <-
  if (simdgroup_index_in_threadgroup == 0u) simdgroup_store(m, y, 8);
}
