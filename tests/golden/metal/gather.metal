[[kernel]] void custom_kernel_cj_gather_7b0911e76f1a_float_float_float_float(
  const device float* input [[buffer(0)]],
  const device float* weight [[buffer(1)]],
  const device float* extra0 [[buffer(2)]],
  device float* output0 [[buffer(3)]],
  uint simdgroup_index_in_threadgroup [[simdgroup_index_in_threadgroup]],
  uint thread_index_in_simdgroup [[thread_index_in_simdgroup]],
  uint3 threadgroup_position_in_grid [[threadgroup_position_in_grid]]) {
  // Convolution 28x28x64 -> 28x28x64, k 3x3, p 1.
  // A threadgroup computes 4x4 pixels by 32 channels with 1x2 simdgroups.
  // Where a lane's two elements of an 8x8 matrix lie: neighbours in one row.
  const int lane = int(thread_index_in_simdgroup);
  const int fragment_row = (lane / 4 & 4) + lane / 2 % 4;
  const int fragment_column = (lane / 4 & 2) * 2 + lane % 2 * 2;
  const int simdgroup_n = int(simdgroup_index_in_threadgroup);
  const int box = int(threadgroup_position_in_grid.x);
  const int block = int(threadgroup_position_in_grid.y);
  const size_t image = size_t(threadgroup_position_in_grid.z);
  input += image * 50176u;
  const int first_h = box / 7 * 4;
  const int first_w = box % 7 * 4;

  // Where the first tap reads for the rows of this lane's matrices; taps and channels come on top.
  int rows[2];
  int from_h[2];
  int from_w[2];
  #pragma clang loop unroll(full)
  for (int i = 0; i < 2; ++i) {
    const int m = i * 8 + fragment_row;
    const int in_h = first_h + m / 4 - 1;
    const int in_w = first_w + m % 4 - 1;
    rows[i] = (in_h * 28 + in_w) * 64;
    from_h[i] = in_h;
    from_w[i] = in_w;
  }

  simdgroup_matrix<float, 8, 8> sums[2][2];
  #pragma clang loop unroll(full)
  for (int i = 0; i < 2; ++i) {
    #pragma clang loop unroll(full)
    for (int j = 0; j < 2; ++j) {
      sums[i][j] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
    }
  }
  const device float2* weights = (const device float2*)(weight + size_t(block) * 18432u + simdgroup_n * 128 + lane * 2);
  for (int k_h = 0; k_h < 3; ++k_h) {
    for (int k_w = 0; k_w < 3; ++k_w) {
      // The rows of this tap: where they begin, or -1 where they lie in the padding.
      int taps[2];
      #pragma clang loop unroll(full)
      for (int i = 0; i < 2; ++i) {
        const int in_h = from_h[i] + k_h;
        const int in_w = from_w[i] + k_w;
        taps[i] = in_h >= 0 && in_h < 28 && in_w >= 0 && in_w < 28 ? rows[i] + k_h * 1792 + k_w * 64 : -1;
      }
      for (int c = fragment_column; c < 64; c += 8) {
        simdgroup_matrix<float, 8, 8> b[2];
        #pragma clang loop unroll(full)
        for (int j = 0; j < 2; ++j) {
          const float2 pair = weights[j * 32];
          b[j].thread_elements()[0] = float(pair.x);
          b[j].thread_elements()[1] = float(pair.y);
        }
        weights += 128;
        #pragma clang loop unroll(full)
        for (int i = 0; i < 2; ++i) {
          simdgroup_matrix<float, 8, 8> a;
          a.thread_elements()[0] = taps[i] >= 0 ? float(input[taps[i] + c]) : 0.0f;
          a.thread_elements()[1] = taps[i] >= 0 ? float(input[taps[i] + c + 1]) : 0.0f;
          #pragma clang loop unroll(full)
          for (int j = 0; j < 2; ++j) {
            simdgroup_multiply_accumulate(sums[i][j], a, b[j], sums[i][j]);
          }
        }
      }
    }
  }

  const int first_channel = block * 32 + simdgroup_n * 16 + fragment_column;
  float e0_of[2][2];
  #pragma clang loop unroll(full)
  for (int j = 0; j < 2; ++j) {
    #pragma clang loop unroll(full)
    for (int e = 0; e < 2; ++e) {
      const int channel = first_channel + j * 8 + e;
      e0_of[j][e] = extra0[channel];
    }
  }
  #pragma clang loop unroll(full)
  for (int i = 0; i < 2; ++i) {
    const int m = i * 8 + fragment_row;
    const int out_h = first_h + m / 4;
    const int out_w = first_w + m % 4;
    const int pixel = (out_h * 28 + out_w);
    const size_t at = (image * 784u + size_t(pixel)) * 64u;
    #pragma clang loop unroll(full)
    for (int j = 0; j < 2; ++j) {
      const int pair = first_channel + j * 8;
      float result0[2];
      #pragma clang loop unroll(full)
      for (int e = 0; e < 2; ++e) {
        const int channel = pair + e;
        const float sum = sums[i][j].thread_elements()[e];
        const float e0 = e0_of[j][e];
        const float v0 = sum + e0;
        const float v2 = -v0;
        const float v3 = metal::precise::exp(v2);
        const float v4 = 1.0f + v3;
        const float v5 = v0 / v4;
        result0[e] = v5;
      }
      output0[at + size_t(pair)] = result0[0];
      output0[at + size_t(pair + 1)] = result0[1];
    }
  }
}
