[[kernel]] void custom_kernel_cj_gemm_3e8815c951a9_float16_t_float16_t_float(
  const device float16_t* input [[buffer(0)]],
  const device float16_t* weight [[buffer(1)]],
  device float* output0 [[buffer(2)]],
  uint simdgroup_index_in_threadgroup [[simdgroup_index_in_threadgroup]],
  uint thread_index_in_simdgroup [[thread_index_in_simdgroup]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]],
  uint3 threadgroup_position_in_grid [[threadgroup_position_in_grid]]) {
  // Convolution 7x7x512 -> 7x7x32, k 3x3, p 1.
  // A threadgroup computes 7x7 pixels by 32 channels with 1x4 simdgroups.
  threadgroup half tile[3240];
  // Where a lane's two elements of an 8x8 matrix lie: neighbours in one row.
  const int lane = int(thread_index_in_simdgroup);
  const int fragment_row = (lane / 4 & 4) + lane / 2 % 4;
  const int fragment_column = (lane / 4 & 2) * 2 + lane % 2 * 2;
  const int simdgroup_n = int(simdgroup_index_in_threadgroup);
  const int box = int(threadgroup_position_in_grid.x);
  const int block = int(threadgroup_position_in_grid.y);
  int z = int(threadgroup_position_in_grid.z);
  const int part_number = z % 16;
  z /= 16;
  const size_t image = size_t(z);

  // The box: its first output of the phase, and where the first tap of that reads.
  const int first_h = 0;
  const int from_h = first_h - 1;
  const int first_w = 0;
  const int from_w = first_w - 1;

  // Where the rows of this lane's matrices begin in the tile.
  int rows[7];
  #pragma clang loop unroll(full)
  for (int i = 0; i < 7; ++i) {
    const int m = metal::min(i * 8 + fragment_row, 48);
    rows[i] = (m / 7 * 9 + m % 7) * 40 + fragment_column;
  }

  simdgroup_matrix<float, 8, 8> sums[7][1];
  #pragma clang loop unroll(full)
  for (int i = 0; i < 7; ++i) {
    #pragma clang loop unroll(full)
    for (int j = 0; j < 1; ++j) {
      sums[i][j] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
    }
  }
  const device half2* weights = (const device half2*)(weight + size_t(block) * 147456u + simdgroup_n * 64 + lane * 2);
  const int first_c = int(part_number) * 32;
  weights += size_t(first_c / 8) * size_t(3 * 3) * 128u;
  for (int c = first_c; c < metal::min(first_c + 32, int(512)); c += 32) {
    // The input of all taps, channels c to c + 32.
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (int e = int(thread_index_in_threadgroup); e < 648; e += 128) {
      const int position = e / 8;
      const int part = e % 8 * 4;
      const int in_h = from_h + position / 9;
      const int in_w = from_w + position % 9;
      const bool inside = in_h >= 0 && in_h < 7 && in_w >= 0 && in_w < 7;
      threadgroup half* to = tile + position * 40 + part;
      const device half* from = input + image * 25088u + size_t((in_h * 7 + in_w) * 512 + c + part);
      #pragma clang loop unroll(full)
      for (int i = 0; i < 4; ++i) {
        to[i] = inside ? from[i] : half(0.0f);
      }
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (int k_h = 0; k_h < 3; ++k_h) {
      for (int k_w = 0; k_w < 3; ++k_w) {
        const threadgroup half* tap = tile + k_h * 360 + k_w * 40;
        #pragma clang loop unroll(full)
        for (int k = 0; k < 32; k += 8) {
          simdgroup_matrix<float, 8, 8> b[1];
          #pragma clang loop unroll(full)
          for (int j = 0; j < 1; ++j) {
            const half2 pair = weights[j * 32];
            b[j].thread_elements()[0] = float(pair.x);
            b[j].thread_elements()[1] = float(pair.y);
          }
          weights += 128;
          #pragma clang loop unroll(full)
          for (int i = 0; i < 7; ++i) {
            simdgroup_matrix<float, 8, 8> a;
            a.thread_elements()[0] = float(tap[rows[i] + k]);
            a.thread_elements()[1] = float(tap[rows[i] + k + 1]);
            #pragma clang loop unroll(full)
            for (int j = 0; j < 1; ++j) {
              simdgroup_multiply_accumulate(sums[i][j], a, b[j], sums[i][j]);
            }
          }
        }
      }
    }
  }

  const int first_channel = simdgroup_n * 8 + fragment_column;
  #pragma clang loop unroll(full)
  for (int i = 0; i < 7; ++i) {
    const int m = i * 8 + fragment_row;
    const int out_h = first_h + m / 7;
    const int out_w = first_w + m % 7;
    if (m >= 49) {
      continue;
    }
    const int pixel = (out_h * 7 + out_w);
    const size_t at = ((image * 16u + size_t(part_number)) * 49u + size_t(pixel)) * 32u;
    #pragma clang loop unroll(full)
    for (int j = 0; j < 1; ++j) {
      const int pair = first_channel + j * 8;
      float result0[2];
      #pragma clang loop unroll(full)
      for (int e = 0; e < 2; ++e) {
        const float sum = sums[i][j].thread_elements()[e];
        result0[e] = sum;
      }
      output0[at + size_t(pair)] = result0[0];
      output0[at + size_t(pair + 1)] = result0[1];
    }
  }
}

[[kernel]] void custom_kernel_cj_sum_parts_2a993771bbe4_float_float16_t_float16_t(
  const device float* partial [[buffer(0)]],
  const device float16_t* extra0 [[buffer(1)]],
  device float16_t* output0 [[buffer(2)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  // Convolution 7x7x512 -> 7x7x32, k 3x3, p 1: 16 partial sums and the epilogue of one output a thread.
  const int channel = int(thread_position_in_grid.x);
  const int pixel = int(thread_position_in_grid.y);
  const size_t image = size_t(thread_position_in_grid.z);
  if (channel >= 32 || pixel >= 49) {
    return;
  }
  const size_t of_image = size_t(pixel) * 32u + size_t(channel);
  float sum = 0.0f;
  for (int part = 0; part < 16; ++part) {
    sum += partial[(image * 16u + size_t(part)) * 1568u + of_image];
  }
  const half e0 = extra0[channel];
  const float v0 = float(e0);
  const float v1 = sum + v0;
  const float v3 = -v1;
  const float v4 = metal::precise::exp(v3);
  const float v5 = 1.0f + v4;
  const float v6 = v1 / v5;
  const half v7 = half(v6);
  output0[image * 1568u + of_image] = v7;
}
