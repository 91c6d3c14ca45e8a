// Bilinear sampling in a style that is not convjit's: macros, plain literals, deduced types, names without a prefix.
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 8 10
// input: grid float32 100 2
// output: y float32 100
// expects: (lambda px, py: (lambda x0, y0: sum(np.pad(x, 9)[y0 + 9 + k // 2, x0 + 9 + k % 2] * abs(1 - k % 2 - (px - x0)) * abs(1 - k // 2 - (py - y0)) for k in range(4)))(np.floor(px).astype(int), np.floor(py).astype(int)))((grid[:, 0] * 0.1 + 0.5) * 9, (grid[:, 1] * 0.1 + 0.5) * 7)

#define H 8
#define W 10
#define COUNT 100

float pixel(const device float* image, int row, int column) {
  if (row < 0 || row >= H || column < 0 || column >= W) return 0;
  return image[row * W + column];
}

[[kernel]] void custom_kernel_bilinear_sampling(
  const device float* x [[buffer(0)]],
  const device float* grid [[buffer(1)]],
  device float* y [[buffer(2)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  auto at = thread_position_in_grid.x;
  if (at >= COUNT) return;
  auto px = (grid[2 * at] * 0.1 + 0.5) * (W - 1);
  auto py = (grid[2 * at + 1] * 0.1 + 0.5) * (H - 1);
  int x0 = floor(px), y0 = floor(py);
  auto fx = px - x0, fy = py - y0;
  float sum = 0;
  for (int k = 0; k < 4; k++) {
    int xx = x0 + (k & 1), yy = y0 + (k >> 1);
    sum += pixel(x, yy, xx) * ((k & 1) ? fx : 1 - fx) * ((k >> 1) ? fy : 1 - fy);
  }
  y[at] = sum;
}
