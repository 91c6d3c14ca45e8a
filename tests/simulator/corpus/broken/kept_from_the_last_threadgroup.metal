// A threadgroup relies on what the one before it left in threadgroup memory.
// stage: check
// says: uninitialised
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 128
// output: y float32 128

[[kernel]] void custom_kernel_kept_from_the_last_threadgroup(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  threadgroup float scale[1];
  if (g == 0u) scale[0] = 2.0f;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  y[g] = x[g] * scale[0];  // <-
}
