// Some threads skip a round, and its barrier.
// stage: check
// says: barrier
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 128
// output: y float32 128

[[kernel]] void custom_kernel_continue_before_barrier(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  threadgroup float tile[64];
  float sum = 0.0f;
  for (uint i = 0u; i < 4u; i++) {
    if (i == 2u && l > 40u) continue;
    tile[l] = x[g] * float(i);
    threadgroup_barrier(mem_flags::mem_threadgroup);  // <-
    sum += tile[63u - l];
    threadgroup_barrier(mem_flags::mem_threadgroup);  // <-
  }
  y[g] = sum;
}
