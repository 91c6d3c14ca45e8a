// A tile as long as the threadgroup, written one place further on.
// stage: check
// says: out of bounds
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 128
// output: y float32 128

[[kernel]] void custom_kernel_threadgroup_write_behind_the_end(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  threadgroup float tile[64];
  tile[l + 1u] = x[g];  // <-
  threadgroup_barrier(mem_flags::mem_threadgroup);
  y[g] = tile[l > 0u ? l : 1u];
}
