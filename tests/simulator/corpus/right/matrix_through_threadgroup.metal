// Simdgroups store their own matrices to their own rows, and read them back after a simdgroup barrier.
// grid: 64 1 1
// threadgroup: 64 1 1
// input: x float32 2 8 8
// output: y float32 2 8 8
// expects: x.transpose(0, 2, 1)

[[kernel]] void custom_kernel_matrix_through_threadgroup(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint thread_index_in_simdgroup [[thread_index_in_simdgroup]],
  uint simdgroup_index_in_threadgroup [[simdgroup_index_in_threadgroup]]) {
  uint lane = thread_index_in_simdgroup;
  uint sg = simdgroup_index_in_threadgroup;
  threadgroup float tile[2 * 64];
  threadgroup float* own = tile + sg * 64u;
  simdgroup_matrix<float, 8, 8> m;
  simdgroup_load(m, x + sg * 64u, 8);
  simdgroup_store(m, own, 8, ulong2(0ul, 0ul), true);
  simdgroup_barrier(mem_flags::mem_threadgroup);
  for (uint k = lane; k < 64u; k += 32u) y[sg * 64u + k] = own[k];
}
