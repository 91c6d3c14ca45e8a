[[kernel]] void custom_kernel_cj_gemm_8f76d3ec31a9_bfloat16_t_bfloat16_t_bfloat16_t_bfloat16_t(
  const device bfloat16_t* input [[buffer(0)]],
  const device bfloat16_t* weight [[buffer(1)]],
  const device bfloat16_t* extra0 [[buffer(2)]],
  device bfloat16_t* output0 [[buffer(3)]],
  uint simdgroup_index_in_threadgroup [[simdgroup_index_in_threadgroup]],
  uint thread_index_in_simdgroup [[thread_index_in_simdgroup]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]],
  uint3 threadgroup_position_in_grid [[threadgroup_position_in_grid]]) {
  // Convolution 100x33 -> 100x20, k 1.
  // A threadgroup computes 15 pixels by 32 channels with 1x2 simdgroups.
  threadgroup bfloat16_t tile[600];
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
  const int first_w = box * 15;
  const int from_w = first_w;

  // Where the rows of this lane's matrices begin in the tile.
  int rows[2];
  #pragma clang loop unroll(full)
  for (int i = 0; i < 2; ++i) {
    const int m = metal::min(i * 8 + fragment_row, 14);
    rows[i] = m * 40 + fragment_column;
  }

  simdgroup_matrix<float, 8, 8> sums[2][2];
  #pragma clang loop unroll(full)
  for (int i = 0; i < 2; ++i) {
    #pragma clang loop unroll(full)
    for (int j = 0; j < 2; ++j) {
      sums[i][j] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
    }
  }
  const device uint* weights = (const device uint*)(weight + size_t(block) * 1280u + simdgroup_n * 128 + lane * 2);
  for (int c = 0; c < 40; c += 32) {
    // The input of all taps, channels c to c + 32.
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (int e = int(thread_index_in_threadgroup); e < 120; e += 64) {
      const int position = e / 8;
      const int part = e % 8 * 4;
      const int in_w = from_w + position;
      const bool inside = in_w < 100;
      threadgroup bfloat16_t* to = tile + position * 40 + part;
      const device bfloat16_t* from = input + image * 3300u + size_t(in_w * 33 + c + part);
      #pragma clang loop unroll(full)
      for (int i = 0; i < 4; ++i) {
        to[i] = inside && c + part + i < 33 ? from[i] : bfloat16_t(0.0f);
      }
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    const threadgroup bfloat16_t* tap = tile;
    for (int k = 0; k < metal::min(32, int(40 - c)); k += 8) {
      simdgroup_matrix<float, 8, 8> b[2];
      #pragma clang loop unroll(full)
      for (int j = 0; j < 2; ++j) {
        const uint pair = weights[j * 32];  // a bfloat is the upper half of a float
        b[j].thread_elements()[0] = as_type<float>(pair << 16);
        b[j].thread_elements()[1] = as_type<float>(pair & 0xffff0000u);
      }
      weights += 128;
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

  const int first_channel = simdgroup_n * 16 + fragment_column;
  const int end_channel = 20;
  bfloat16_t e0_of[2][2];
  #pragma clang loop unroll(full)
  for (int j = 0; j < 2; ++j) {
    #pragma clang loop unroll(full)
    for (int e = 0; e < 2; ++e) {
      const int channel = metal::min(first_channel + j * 8 + e, end_channel - 1);
      e0_of[j][e] = extra0[channel];
    }
  }
  #pragma clang loop unroll(full)
  for (int i = 0; i < 2; ++i) {
    const int m = i * 8 + fragment_row;
    const int out_w = first_w + m;
    if (m >= 15 || out_w >= 100) {
      continue;
    }
    const int pixel = out_w;
    const size_t at = (image * 100u + size_t(pixel)) * 20u;
    #pragma clang loop unroll(full)
    for (int j = 0; j < 2; ++j) {
      const int pair = first_channel + j * 8;
      if (pair >= end_channel) {
        continue;
      }
      bfloat16_t result0[2];
      #pragma clang loop unroll(full)
      for (int e = 0; e < 2; ++e) {
        const int channel = pair + e;
        const float sum = sums[i][j].thread_elements()[e];
        const bfloat16_t e0 = e0_of[j][e];
        const float v0 = float(e0);
        const float v1 = sum + v0;
        const float v3 = -v1;
        const float v4 = metal::precise::exp(v3);
        const float v5 = 1.0f + v4;
        const float v6 = v1 / v5;
        const bfloat16_t v7 = bfloat16_t(v6);
        result0[e] = v7;
      }
      output0[at + size_t(pair)] = result0[0];
      output0[at + size_t(pair + 1)] = result0[1];
    }
  }
}
