// A depthwise 3x3 convolution in channels-last layout, borders by conditions.
// grid: 8 8 6
// threadgroup: 8 8 1
// input: x float32 6 7 5
// input: w float32 3 3 5
// output: y float32 6 7 5
// expects: sum(np.pad(x, ((1, 1), (1, 1), (0, 0)))[i:i + 6, j:j + 7] * w[i, j] for i in range(3) for j in range(3))

[[kernel]] void custom_kernel_depthwise(
  const device float* x [[buffer(0)]],
  const device float* w [[buffer(1)]],
  device float* y [[buffer(2)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint c = thread_position_in_grid.x;
  int2 at = int2(thread_position_in_grid.yz);
  if (c >= 5u || at.x >= 7 || at.y >= 6) return;
  float sum = 0.0f;
#pragma clang loop unroll(full)
  for (int dy = -1; dy <= 1; ++dy) {
#pragma clang loop unroll(full)
    for (int dx = -1; dx <= 1; ++dx) {
      int row = at.y + dy, column = at.x + dx;
      bool inside = row >= 0 && row < 6 && column >= 0 && column < 7;
      float v = inside ? x[(row * 7 + column) * 5 + int(c)] : 0.0f;
      sum = metal::fma(v, w[((dy + 1) * 3 + dx + 1) * 5 + int(c)], sum);
    }
  }
  y[(at.y * 7 + at.x) * 5 + int(c)] = sum;
}
