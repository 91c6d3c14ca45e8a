// Half in and out, four at a time, float between.
// grid: 64 1 1
// threadgroup: 64 1 1
// input: x float16 64 4
// output: y float16 64 4
// expects: np.clip(2 * x + 1, 0, 6)

[[kernel]] void custom_kernel_half_vectors(
  const device half* x [[buffer(0)]],
  device half* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint g = thread_position_in_grid.x;
  float4 v = float4(((const device half4*)x)[g]);
  v = clamp(v * 2.0f + 1.0f, 0.0f, 6.0f);
  ((device half4*)y)[g] = half4(v);
}
