// Four floats loaded as a float4 from an address that is no multiple of 16.
// stage: check
// says: misaligned
// grid: 32 1 1
// threadgroup: 32 1 1
// input: x float32 128
// output: y float32 31

[[kernel]] void custom_kernel_misaligned_vector_load(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  if (g >= 31u) return;
  float4 v = *((const device float4*)(x + 1u + g * 4u));  // <-
  y[g] = v.x + v.y + v.z + v.w;
}
