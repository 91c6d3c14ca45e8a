// A tree reduction that leaves out the barriers of its last steps, within one simdgroup.
// stage: check
// says: race
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 128
// output: y float32 2

[[kernel]] void custom_kernel_tree_with_lockstep_end(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 threadgroup_position_in_grid [[threadgroup_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint l = thread_index_in_threadgroup;
  uint group = threadgroup_position_in_grid.x;
  threadgroup float part[64];
  part[l] = x[group * 64u + l];
  threadgroup_barrier(mem_flags::mem_threadgroup);
  for (uint step = 32u; step > 0u; step /= 2u) {
    if (l < step) part[l] += part[l + step];  // <-
    if (step > 16u) threadgroup_barrier(mem_flags::mem_threadgroup);
  }
  if (l == 0u) y[group] = part[0];
}
