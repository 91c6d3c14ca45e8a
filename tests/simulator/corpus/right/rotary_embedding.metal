// Rotary position embedding of pairs of channels.
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 16 16
// output: y float32 16 16
// expects: (lambda t: np.concatenate([x[:,:8]*np.cos(t)-x[:,8:]*np.sin(t), x[:,:8]*np.sin(t)+x[:,8:]*np.cos(t)],1))(np.arange(16)[:,None]*2.0**(-np.arange(8)*0.5))

[[kernel]] void custom_kernel_rotary_embedding(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  uint position = g / 8u;
  uint pair = g % 8u;
  float theta = float(position) * metal::exp2(-float(pair) * 0.5f);
  float c = metal::cos(theta);
  float s = metal::sin(theta);
  float a = x[position * 16u + pair];
  float b = x[position * 16u + pair + 8u];
  y[position * 16u + pair] = a * c - b * s;
  y[position * 16u + pair + 8u] = a * s + b * c;
}
