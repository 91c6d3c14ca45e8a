// Threads of one threadgroup pass values through device memory, with the barrier for it.
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 128
// output: y float32 128
// output: z float32 128
// expects: 2 * x
// expects: 2 * x.reshape(2, 64)[:, ::-1].reshape(-1)

[[kernel]] void custom_kernel_device_memory_between_threads(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  device float* z [[buffer(2)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  y[g] = x[g] * 2.0f;
  threadgroup_barrier(mem_flags::mem_device);
  z[g] = y[g - l + (63u - l)];
}
