// Two floats stored as a float2 at an odd index.
// stage: check
// says: misaligned
// grid: 64 1 1
// threadgroup: 64 1 1
// input: x float32 128
// output: y float32 128

[[kernel]] void custom_kernel_misaligned_vector_store(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  if (g == 0u) y[0] = 0.0f;
  if (g == 0u) y[127] = 0.0f;
  if (g < 63u) *((device float2*)(y + 1u + g * 2u)) = float2(x[g], x[g + 64u]);  // <-
}
