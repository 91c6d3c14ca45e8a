// A load of four values where two are left.
// stage: check
// says: out of bounds
// grid: 64 1 1
// threadgroup: 64 1 1
// input: x float32 102
// output: y float32 102

[[kernel]] void custom_kernel_vector_over_the_tail(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  if (g >= 26u) return;
  float4 v = *((const device packed_float4*)(x + g * 4u));  // <-
  for (uint k = 0u; k < 4u; ++k) {
    if (g * 4u + k < 102u) y[g * 4u + k] = v[k];
  }
}
