// A transposed convolution of stride two by the parity of its output.
// grid: 64 1 1
// threadgroup: 64 1 1
// input: x float32 20
// input: w float32 3
// output: y float32 41
// expects: np.convolve(np.insert(x, np.arange(1, 20), 0.0), w)

[[kernel]] void custom_kernel_transposed_convolution(
  const device float* x [[buffer(0)]],
  const constant float* w [[buffer(1)]],
  device float* y [[buffer(2)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint g = thread_position_in_grid.x;
  if (g >= 41u) return;
  float sum = 0.0f;
  int from = int(g) / 2;
  if (g % 2u == 0u) {
    if (from < 20) sum = metal::fma(x[from], w[0], sum);
    if (from > 0) sum = metal::fma(x[from - 1], w[2], sum);
  } else {
    sum = x[from] * w[1];
  }
  y[g] = sum;
}
