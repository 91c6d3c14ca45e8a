[[kernel]] void custom_kernel_cj_depthwise_2da93047a883_float16_t_float16_t_float16_t_float16_t(
  const device float16_t* input [[buffer(0)]],
  const device float16_t* weight [[buffer(1)]],
  const device float16_t* extra0 [[buffer(2)]],
  device float16_t* output0 [[buffer(3)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  // Convolution 28x28x32 -> 28x28x32, k 3x3, p 1, depthwise.
  // A thread computes 1x4 outputs of 2 channels; its neighbours, those of the next channels.
  const int first_channel = int(thread_position_in_grid.x) * 2;
  const int patch = int(thread_position_in_grid.y);
  const size_t image = size_t(thread_position_in_grid.z);
  if (first_channel >= 32 || patch >= 196) {
    return;
  }
  const int row = patch / 7;
  const int column = (patch % 7) * 4;
  const int from_h = row - 1;
  const int from_w = column - 1;
  input += image * 25088u;
  float sums[8] = {0.0f};
  {
    float held[6] = {0.0f};
    for (int i = 0; i < 3; ++i) {
      const int k_h = i;
      #pragma clang loop unroll(full)
      for (int t = 0; t < 3; ++t) {
        const int k_w = t;
        const int from = first_channel + (k_h * 3 + k_w) * 32;
        #pragma clang loop unroll(full)
        for (int c = 0; c < 2; ++c) {
          held[c + t * 2] = float(weight[from + c]);
        }
      }
      const int in_h = from_h + i;
      if (!(in_h >= 0 && in_h < 28)) {
        continue;
      }
      float values[12];
      const int in_w = from_w;
      const int from = first_channel + (in_h * 28 + in_w) * 32;
      if (in_w >= 0 && in_w < 23) {
        #pragma clang loop unroll(full)
        for (int j = 0; j < 6; ++j) {
          #pragma clang loop unroll(full)
          for (int c = 0; c < 2; ++c) {
            values[c + j * 2] = float(input[from + c + j * 32]);
          }
        }
      } else {
        #pragma clang loop unroll(full)
        for (int j = 0; j < 6; ++j) {
          #pragma clang loop unroll(full)
          for (int c = 0; c < 2; ++c) {
            values[c + j * 2] = in_w + j < 0 || in_w + j >= 28 ? 0.0f : float(input[from + c + j * 32]);
          }
        }
      }
      #pragma clang loop unroll(full)
      for (int w = 0; w < 4; ++w) {
        #pragma clang loop unroll(full)
        for (int t = 0; t < 3; ++t) {
          #pragma clang loop unroll(full)
          for (int c = 0; c < 2; ++c) {
            const float value = values[c + (t + w) * 2];
            const float factor = held[c + t * 2];
            const int s = c + w * 2;
            sums[s] = metal::fma(value, factor, sums[s]);
          }
        }
      }
    }
  }
  half e0_of[2];
  #pragma clang loop unroll(full)
  for (int c = 0; c < 2; ++c) {
    const int channel = first_channel + c;
    e0_of[c] = extra0[channel];
  }
  const int out_h = row;
  #pragma clang loop unroll(full)
  for (int w = 0; w < 4; ++w) {
    const int out_w = column + w;
    const int pixel = (out_h * 28 + out_w);
    const int to = first_channel + pixel * 32;
    #pragma clang loop unroll(full)
    for (int c = 0; c < 2; ++c) {
      const int channel = first_channel + c;
      const float sum = sums[c + w * 2];
      const half e0 = e0_of[c];
      const float v0 = float(e0);
      const float v1 = sum + v0;
      const float v3 = -v1;
      const float v4 = metal::precise::exp(v3);
      const float v5 = 1.0f + v4;
      const float v6 = v1 / v5;
      const half v7 = half(v6);
      output0[image * 25088u + size_t(to + c)] = v7;
    }
  }
}
