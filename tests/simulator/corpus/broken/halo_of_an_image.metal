// A convolution that forgets its padding at the lower border.
// stage: check
// says: out of bounds
// grid: 8 8 1
// threadgroup: 8 8 1
// input: x float32 8 8
// output: y float32 8 8

[[kernel]] void custom_kernel_halo_of_an_image(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint2 at = thread_position_in_grid.xy;
  float sum = 0.0f;
  for (int dy = -1; dy <= 1; ++dy) {
    int row = int(at.y) + dy;
    if (row >= 0) sum += x[row * 8 + int(at.x)];  // <-
  }
  y[at.y * 8u + at.x] = sum;
}
