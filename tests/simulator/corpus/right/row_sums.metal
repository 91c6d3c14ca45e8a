// A threadgroup for each row: sums of simdgroups, then of the threadgroup.
// grid: 320 1 1
// threadgroup: 64 1 1
// input: x float32 5 200
// output: y float32 5
// expects: x.sum(-1)

[[kernel]] void custom_kernel_row_sums(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 threadgroup_position_in_grid [[threadgroup_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]],
  uint thread_index_in_simdgroup [[thread_index_in_simdgroup]],
  uint simdgroup_index_in_threadgroup [[simdgroup_index_in_threadgroup]]) {
  uint l = thread_index_in_threadgroup;
  uint row = threadgroup_position_in_grid.x;
  threadgroup float part[2];
  float sum = 0.0f;
  for (uint k = l; k < 200u; k += 64u) sum += x[row * 200u + k];
  sum = simd_sum(sum);
  if (thread_index_in_simdgroup == 0u) part[simdgroup_index_in_threadgroup] = sum;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (l == 0u) y[row] = part[0] + part[1];
}
