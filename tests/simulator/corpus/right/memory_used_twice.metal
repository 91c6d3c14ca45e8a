// One threadgroup array with two uses, and a view of it as vectors.
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 128
// output: y float32 128
// expects: x.reshape(2, 64)[:, ::-1].reshape(-1, 2)[:, ::-1].reshape(-1) + 6

[[kernel]] void custom_kernel_memory_used_twice(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  threadgroup float4 space[64];
  threadgroup float* scalars = (threadgroup float*)space;
  scalars[l] = x[g];
  threadgroup_barrier(mem_flags::mem_threadgroup);
  float v = scalars[63u - l];
  threadgroup_barrier(mem_flags::mem_threadgroup);
  space[l] = float4(v, 1.0f, 2.0f, 3.0f);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  float4 w = space[l ^ 1u];
  y[g] = w.x + w.y * w.z * w.w;
}
