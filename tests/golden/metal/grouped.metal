[[kernel]] void custom_kernel_cj_grouped_779532c56a28_float16_t_float16_t_float16_t_float16_t(
  const device float16_t* input [[buffer(0)]],
  const device float16_t* weight [[buffer(1)]],
  const device float16_t* extra0 [[buffer(2)]],
  device float16_t* output0 [[buffer(3)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  // Convolution 28x28x32 -> 28x28x32, k 3x3, p 1, groups 8.
  // A thread computes 4 channels of 2 neighbouring outputs.
  const int first_channel = int(thread_position_in_grid.x) * 4;
  const int strip = int(thread_position_in_grid.y);
  const size_t image = size_t(thread_position_in_grid.z);
  if (first_channel >= 32 || strip >= 392) {
    return;
  }
  const int out_h = strip / 14;
  const int first_w = (strip % 14) * 2;
  const int in_w = first_w - 1;
  input += image * 25088u;

  float sums[2][4];
  #pragma clang loop unroll(full)
  for (int j = 0; j < 2; ++j) {
    #pragma clang loop unroll(full)
    for (int i = 0; i < 4; ++i) {
      sums[j][i] = 0.0f;
    }
  }
  const int start_h = out_h - 1;
  for (int k_h = 0; k_h < 3; ++k_h) {
    const int in_h = start_h + k_h;
    if (in_h < 0 || in_h >= 28) {
      continue;
    }
    const int from = (in_h * 28 + in_w) * 32 + first_channel / 4 * 4;
    for (int c = 0; c < 4; ++c) {
      float values[4];
      #pragma clang loop unroll(full)
      for (int j = 0; j < 4; ++j) {
        values[j] = in_w + j < 0 || in_w + j >= 28 ? 0.0f : float(input[from + c + j * 32]);
      }
      #pragma clang loop unroll(full)
      for (int k_w = 0; k_w < 3; ++k_w) {
        const int to = ((k_h * 3 + k_w) * 4 + c) * 32 + first_channel;
        #pragma clang loop unroll(full)
        for (int i = 0; i < 4; ++i) {
          const float factor = float(weight[to + i]);
          #pragma clang loop unroll(full)
          for (int j = 0; j < 2; ++j) {
            sums[j][i] = metal::fma(values[j + k_w], factor, sums[j][i]);
          }
        }
      }
    }
  }

  #pragma clang loop unroll(full)
  for (int j = 0; j < 2; ++j) {
    const int out_w = first_w + j;
    const int pixel = (out_h * 28 + out_w);
    const size_t at = (image * 784u + size_t(pixel)) * 32u + size_t(first_channel);
    #pragma clang loop unroll(full)
    for (int i = 0; i < 4; ++i) {
      const int channel = first_channel + i;
      const float sum = sums[j][i];
      const half e0 = extra0[channel];
      const float v0 = float(e0);
      const float v1 = sum + v0;
      const float v3 = -v1;
      const float v4 = metal::precise::exp(v3);
      const float v5 = 1.0f + v4;
      const float v6 = v1 / v5;
      const half v7 = half(v6);
      output0[at + size_t(i)] = v7;
    }
  }
}
