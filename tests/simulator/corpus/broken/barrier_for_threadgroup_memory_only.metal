// A barrier that orders threadgroup memory, where device memory is shared.
// stage: check
// says: no barrier for device memory
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 128
// output: y float32 128
// output: z float32 128

[[kernel]] void custom_kernel_barrier_for_threadgroup_memory_only(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  device float* z [[buffer(2)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  y[g] = x[g] * 2.0f;  // <-
  threadgroup_barrier(mem_flags::mem_threadgroup);
  z[g] = y[g - l + (63u - l)];  // <-
}
