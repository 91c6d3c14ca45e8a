[[kernel]] void custom_kernel_cj_gemm_f4d41bfef717_float16_t_float16_t_float16_t_float16_t(
  const device float16_t* input [[buffer(0)]],
  const device float16_t* weight [[buffer(1)]],
  const device float16_t* extra0 [[buffer(2)]],
  device float16_t* output0 [[buffer(3)]],
  uint simdgroup_index_in_threadgroup [[simdgroup_index_in_threadgroup]],
  uint thread_index_in_simdgroup [[thread_index_in_simdgroup]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]],
  uint3 threadgroup_position_in_grid [[threadgroup_position_in_grid]]) {
  // Convolution 28x28x64 -> 28x28x64, k 3x3, p 1.
  // A threadgroup computes 4x4 pixels by 64 channels with 1x4 simdgroups.
  threadgroup half tile[1440];
  // Where a lane's two elements of an 8x8 matrix lie: neighbours in one row.
  const int lane = int(thread_index_in_simdgroup);
  const int fragment_row = (lane / 4 & 4) + lane / 2 % 4;
  const int fragment_column = (lane / 4 & 2) * 2 + lane % 2 * 2;
  const int simdgroup_n = int(simdgroup_index_in_threadgroup);
  const int box = int(threadgroup_position_in_grid.x);
  const int block = int(threadgroup_position_in_grid.y);
  const int z = int(threadgroup_position_in_grid.z);
  const size_t image = size_t(z);

  // The box: its first output of the phase, and where the first tap of that reads.
  const int first_h = box / 7 * 4;
  const int from_h = first_h - 1;
  const int first_w = box % 7 * 4;
  const int from_w = first_w - 1;

  // Where the rows of this lane's matrices begin in the tile.
  int rows[2];
  #pragma clang loop unroll(full)
  for (int i = 0; i < 2; ++i) {
    const int m = i * 8 + fragment_row;
    rows[i] = (m / 4 * 6 + m % 4) * 40 + fragment_column;
  }

  simdgroup_matrix<float, 8, 8> sums[2][2];
  #pragma clang loop unroll(full)
  for (int i = 0; i < 2; ++i) {
    #pragma clang loop unroll(full)
    for (int j = 0; j < 2; ++j) {
      sums[i][j] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
    }
  }
  const device half2* weights = (const device half2*)(weight + size_t(block) * 36864u + simdgroup_n * 128 + lane * 2);
  for (int c = 0; c < 64; c += 32) {
    // The input of all taps, channels c to c + 32.
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (int e = int(thread_index_in_threadgroup); e < 288; e += 128) {
      const int position = e / 8;
      const int part = e % 8 * 4;
      const int in_h = from_h + position / 6;
      const int in_w = from_w + position % 6;
      const bool inside = in_h >= 0 && in_h < 28 && in_w >= 0 && in_w < 28;
      threadgroup half* to = tile + position * 40 + part;
      const device half* from = input + image * 50176u + size_t((in_h * 28 + in_w) * 64 + c + part);
      #pragma clang loop unroll(full)
      for (int i = 0; i < 4; ++i) {
        to[i] = inside ? from[i] : half(0.0f);
      }
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (int k_h = 0; k_h < 3; ++k_h) {
      for (int k_w = 0; k_w < 3; ++k_w) {
        const threadgroup half* tap = tile + k_h * 240 + k_w * 40;
        #pragma clang loop unroll(full)
        for (int k = 0; k < 32; k += 8) {
          simdgroup_matrix<float, 8, 8> b[2];
          #pragma clang loop unroll(full)
          for (int j = 0; j < 2; ++j) {
            const half2 pair = weights[j * 32];
            b[j].thread_elements()[0] = float(pair.x);
            b[j].thread_elements()[1] = float(pair.y);
          }
          weights += 256;
          #pragma clang loop unroll(full)
          for (int i = 0; i < 2; ++i) {
            simdgroup_matrix<float, 8, 8> a;
            a.thread_elements()[0] = float(tap[rows[i] + k]);
            a.thread_elements()[1] = float(tap[rows[i] + k + 1]);
            #pragma clang loop unroll(full)
            for (int j = 0; j < 2; ++j) {
              simdgroup_multiply_accumulate(sums[i][j], a, b[j], sums[i][j]);
            }
          }
        }
      }
    }
  }

  const int first_channel = simdgroup_n * 16 + fragment_column;
  half e0_of[2][2];
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
      half result0[2];
      #pragma clang loop unroll(full)
      for (int e = 0; e < 2; ++e) {
        const int channel = pair + e;
        const float sum = sums[i][j].thread_elements()[e];
        const half e0 = e0_of[j][e];
        const float v0 = float(e0);
        const float v1 = sum + v0;
        const float v3 = -v1;
        const float v4 = metal::precise::exp(v3);
        const float v5 = 1.0f + v4;
        const float v6 = v1 / v5;
        const half v7 = half(v6);
        result0[e] = v7;
      }
      output0[at + size_t(pair)] = result0[0];
      output0[at + size_t(pair + 1)] = result0[1];
    }
  }
}
