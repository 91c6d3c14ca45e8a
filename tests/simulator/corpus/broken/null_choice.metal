// A pointer that is null for the last threads.
// stage: check
// says: touches memory outside
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 128
// output: y float32 128

[[kernel]] void custom_kernel_null_choice(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  threadgroup float tile[64];
  tile[l] = x[g];
  threadgroup_barrier(mem_flags::mem_threadgroup);
  threadgroup float* from = l < 63u ? &tile[l + 1u] : (threadgroup float*)0;
  y[g] = *from;  // <-
}
