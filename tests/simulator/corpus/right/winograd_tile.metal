// The input transform of F(2, 3) in registers.
// grid: 64 1 1
// threadgroup: 64 1 1
// input: x float32 42
// input: w float32 3
// output: y float32 40
// expects: np.correlate(x, w, 'valid')

[[kernel]] void custom_kernel_winograd_tile(
  const device float* x [[buffer(0)]],
  const constant float* w [[buffer(1)]],
  device float* y [[buffer(2)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint g = thread_position_in_grid.x;
  if (g >= 20u) return;
  float d[4];
  for (uint k = 0u; k < 4u; ++k) d[k] = x[g * 2u + k];
  float t[4] = {d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]};
  float m[4] = {t[0] * w[0], t[1] * 0.5f * (w[0] + w[1] + w[2]), t[2] * 0.5f * (w[0] - w[1] + w[2]), t[3] * w[2]};
  y[g * 2u] = m[0] + m[1] + m[2];
  y[g * 2u + 1u] = m[1] - m[2] - m[3];
}
