// An activation with a polynomial error function.
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 128
// output: y float32 128
// expects: 0.5 * x * (1 + np.vectorize(__import__('math').erf)(x / 2**0.5))

constant constexpr float cj_p[5] = {0.254829592f, -0.284496736f, 1.421413741f, -1.453152027f, 1.061405429f};

// Abramowitz and Stegun 7.1.26.
inline float cj_erf(float v) {
  float t = 1.0f / (1.0f + 0.3275911f * fabs(v));
  float sum = 0.0f;
#pragma clang loop unroll(full)
  for (int k = 4; k >= 0; --k) sum = (sum + cj_p[k]) * t;
  float r = 1.0f - sum * metal::precise::exp(-v * v);
  return v < 0.0f ? -r : r;
}

[[kernel]] void custom_kernel_gelu(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint g = thread_position_in_grid.x;
  y[g] = 0.5f * x[g] * (1.0f + cj_erf(x[g] * M_SQRT1_2_F));
}
