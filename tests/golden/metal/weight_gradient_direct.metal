[[kernel]] void custom_kernel_cj_weight_gradient_direct_db800165186b_float16_t_float16_t_float(
  const device float16_t* input [[buffer(0)]],
  const constant int* input_shape [[buffer(1)]],
  const device float16_t* output_gradient [[buffer(2)]],
  device float* output0 [[buffer(3)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint3 threadgroup_position_in_grid [[threadgroup_position_in_grid]]) {
  // Weight gradient, 28x28x32 -> 28x28x32, k 3x3, p 1, depthwise.
  // A thread computes 3 neighbouring taps of one input and one output channel, the sums of one of 49 parts; its
  // neighbours have the next output channels, so that together they read what lies side by side.
  const int channel = int(thread_position_in_grid.x);
  const int element = int(thread_position_in_grid.y);
  if (channel >= 32 || element >= 3) {
    return;
  }
  // The pixels of all images, shared out evenly.
  const long all_pixels = long(input_shape[0]) * 784;
  const long part_number = long(threadgroup_position_in_grid.z);
  const long pixels_of_part = (all_pixels + 48) / 49;
  const long first_pixel = part_number * pixels_of_part;
  const int pixels = int(metal::min(pixels_of_part, all_pixels - first_pixel));
  output_gradient += size_t(first_pixel) * 32u + size_t(channel);
  const int input_channel = channel;
  const int reach_h = element - 1;
  int out_h = int(first_pixel / 28 % 28);
  int out_w = int(first_pixel % 28);
  input += size_t(first_pixel / 784) * 25088u;

  // Chains of additions are short: those of 512 pixels are sums by themselves.
  float sums[3] = {0.0f, 0.0f, 0.0f};
  for (int first = 0; first < pixels; first += 512) {
    float sums_of_run[3] = {0.0f, 0.0f, 0.0f};
    for (int pixel = first; pixel < metal::min(first + 512, pixels); ++pixel) {
      const float factor = float(output_gradient[0]);
      const int in_h = out_h + reach_h;
      #pragma clang loop unroll(full)
      for (int t = 0; t < 3; ++t) {
        const int in_w = out_w - 1 + t;
        const bool inside = in_h >= 0 && in_h < 28 && in_w >= 0 && in_w < 28;
        const float value = inside ? float(input[(in_h * 28 + in_w) * 32 + input_channel]) : 0.0f;
        sums_of_run[t] = metal::fma(factor, value, sums_of_run[t]);
      }
      output_gradient += 32;
      out_w += 1;
      if (out_w >= 28) {
        out_w -= 28;
        ++out_h;
      }
      if (out_h >= 28) {
        out_h -= 28;
        input += 25088;
      }
    }
    #pragma clang loop unroll(full)
    for (int t = 0; t < 3; ++t) {
      sums[t] += sums_of_run[t];
    }
  }

  output0 += size_t(part_number) * 288u;
  const int at = channel * 9 + element * 3;
  #pragma clang loop unroll(full)
  for (int t = 0; t < 3; ++t) {
    output0[at + t] = sums[t];
  }
}

[[kernel]] void custom_kernel_cj_sum_parts_f76d62bfac62_float_float16_t(
  const device float* partial [[buffer(0)]],
  device float16_t* output0 [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  // Weight gradient, 28x28x32 -> 28x28x32, k 3x3, p 1, depthwise: 49 partial sums and the epilogue of one output a thread.
  const int channel = int(thread_position_in_grid.x);
  const int pixel = int(thread_position_in_grid.y);
  const size_t image = size_t(thread_position_in_grid.z);
  if (channel >= 9 || pixel >= 32) {
    return;
  }
  const size_t of_image = size_t(pixel) * 9u + size_t(channel);
  float sum = 0.0f;
  for (int part = 0; part < 49; ++part) {
    sum += partial[(image * 49u + size_t(part)) * 288u + of_image];
  }
  const half v0 = half(sum);
  output0[image * 288u + of_image] = v0;
}
