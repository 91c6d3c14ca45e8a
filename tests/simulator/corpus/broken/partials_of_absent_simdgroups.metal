// The last reduction reads a partial sum for each lane; there are two simdgroups.
// stage: check
// says: nobody has written
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 128
// output: y float32 128

[[kernel]] void custom_kernel_partials_of_absent_simdgroups(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]],
  uint thread_index_in_simdgroup [[thread_index_in_simdgroup]],
  uint simdgroup_index_in_threadgroup [[simdgroup_index_in_threadgroup]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  threadgroup float partials[32];
  float sum = simd_sum(x[g]);
  if (thread_index_in_simdgroup == 0u) partials[simdgroup_index_in_threadgroup] = sum;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  float total = simd_sum(partials[thread_index_in_simdgroup]);  // <-
  y[g] = x[g] / total;
}
