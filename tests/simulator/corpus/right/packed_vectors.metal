// Three components a pixel, twelve bytes apart.
// grid: 64 1 1
// threadgroup: 64 1 1
// input: x float32 30 3
// output: y float32 30
// expects: x @ np.array([0.299, 0.587, 0.114])

[[kernel]] void custom_kernel_packed_vectors(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint g = thread_position_in_grid.x;
  if (g >= 30u) return;
  float3 v = float3(((const device packed_float3*)x)[g]);
  float grey = dot(v, float3(0.299f, 0.587f, 0.114f));
  y[g] = grey;
}
