// A barrier that orders device memory, where threadgroup memory is shared.
// stage: check
// says: no barrier for threadgroup memory
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 128
// output: y float32 128

[[kernel]] void custom_kernel_barrier_for_other_memory(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  threadgroup float tile[64];
  tile[l] = x[g];  // <-
  threadgroup_barrier(mem_flags::mem_device);
  y[g] = tile[63u - l];  // <-
}
