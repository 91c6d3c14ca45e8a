// Lanes of a simdgroup exchange values through threadgroup memory: a simdgroup barrier is enough.
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 128
// output: y float32 128
// expects: x.reshape(4, 32)[:, ::-1].reshape(-1)

[[kernel]] void custom_kernel_simdgroup_exchange(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  threadgroup float tile[64];
  tile[l] = x[g];
  simdgroup_barrier(mem_flags::mem_threadgroup);
  y[g] = tile[l ^ 31u];
}
