// A whole simdgroup has nothing to do and returns; the other waits for it.
// stage: check
// says: reach the barrier
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 128
// output: y float32 128

[[kernel]] void custom_kernel_simdgroup_returns_before_barrier(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]],
  uint simdgroup_index_in_threadgroup [[simdgroup_index_in_threadgroup]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  threadgroup float tile[32];
  if (simdgroup_index_in_threadgroup == 1u) return;
  tile[l] = x[g];
  threadgroup_barrier(mem_flags::mem_threadgroup);  // <-
  y[g] = tile[31u - l];
}
