// Threadgroups without work return all together, in front of a barrier.
// grid: 256 1 1
// threadgroup: 64 1 1
// input: x float32 128
// output: y float32 128
// expects: x.reshape(2, 64)[:, ::-1].reshape(-1)

[[kernel]] void custom_kernel_whole_threadgroups_return(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint3 threadgroup_position_in_grid [[threadgroup_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  if (threadgroup_position_in_grid.x >= 2u) return;
  threadgroup float tile[64];
  tile[l] = x[g];
  threadgroup_barrier(mem_flags::mem_threadgroup);
  y[g] = tile[63u - l];
}
