[[kernel]] void custom_kernel_cj_direct_e4d20355488e_float16_t_float16_t_float16_t_float16_t(
  const device float16_t* input [[buffer(0)]],
  const device float16_t* weight [[buffer(1)]],
  const device float16_t* extra0 [[buffer(2)]],
  device float16_t* output0 [[buffer(3)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  // Convolution 12x12x3 -> 6x6x16, k 3x3, s 2, p 1.
  // A thread computes 4 channels of one pixel; its neighbours compute the next channels,
  // so that together they read weights that lie side by side.
  const int first_channel = int(thread_position_in_grid.x) * 4;
  const int pixel = int(thread_position_in_grid.y);
  const size_t image = size_t(thread_position_in_grid.z);
  if (first_channel >= 16 || pixel >= 36) {
    return;
  }
  const int out_h = pixel / 6;
  const int out_w = pixel % 6;
  input += image * 432u;

  float sums[4] = {0.0f, 0.0f, 0.0f, 0.0f};
  const int start_h = out_h * 2 - 1;
  for (int k_h = 0; k_h < 3; k_h += 1) {
    const int in_h = start_h + k_h;
    if (in_h < 0) {
      continue;
    }
    const int start_w = out_w * 2 - 1;
    for (int k_w = 0; k_w < 3; k_w += 1) {
      const int in_w = start_w + k_w;
      if (in_w < 0) {
        continue;
      }
      const int from = (in_h * 12 + in_w) * 3;
      const int to = (k_h * 3 + k_w) * 48 + first_channel;
      for (int c = 0; c < 3; ++c) {
        const float value = float(input[from + c]);
        #pragma clang loop unroll(full)
        for (int j = 0; j < 4; ++j) {
          sums[j] = metal::fma(value, float(weight[to + c * 16 + j]), sums[j]);
        }
      }
    }
  }

  const size_t at = (image * 36u + size_t(pixel)) * 16u + size_t(first_channel);
  #pragma clang loop unroll(full)
  for (int j = 0; j < 4; ++j) {
    const int channel = first_channel + j;
    const float sum = sums[j];
    const half e0 = extra0[channel];
    const float v0 = float(e0);
    const float v1 = sum + v0;
    const float v3 = -v1;
    const float v4 = metal::precise::exp(v3);
    const float v5 = 1.0f + v4;
    const float v6 = v1 / v5;
    const half v7 = half(v6);
    output0[at + size_t(j)] = v7;
  }
}
