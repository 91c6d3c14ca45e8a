// Every thread may set a shared flag while others read it.
// stage: check
// says: race
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 128
// output: y float32 128

[[kernel]] void custom_kernel_flag_written_plainly(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  threadgroup int found;
  if (l == 0u) found = 0;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (x[g] > 1.0f) found = int(g);  // <-
  y[g] = float(found);  // <-
}
