// The positive numbers of 32, in order, in front; by a ballot of the simdgroup.
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 128
// output: y float32 128
// expects: np.concatenate([np.concatenate([r[r>0],np.zeros((r<=0).sum())]) for r in x.reshape(-1,32)])

[[kernel]] void custom_kernel_compaction_by_ballot(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]],
  uint thread_index_in_simdgroup [[thread_index_in_simdgroup]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  bool keep = x[g] > 0.0f;
  ulong votes = (ulong)(simd_vote::vote_t)simd_ballot(keep);
  ulong below = votes & ((1ul << thread_index_in_simdgroup) - 1ul);
  uint kept = popcount(uint(votes));
  uint place = keep ? popcount(uint(below)) : kept + thread_index_in_simdgroup - popcount(uint(below));
  y[g - thread_index_in_simdgroup + place] = keep ? x[g] : 0.0f;
}
