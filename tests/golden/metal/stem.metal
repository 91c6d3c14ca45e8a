constant constexpr int cj_terms[152] = {
  0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48,
  49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 78, 79, 80, 81, 82, 83, 84, 85, 86, 87, 88, 89, 90, 91, 92, 93, 94, 95,
  96, 97, 98, 117, 118, 119, 120, 121, 122, 123, 124, 125, 126, 127, 128, 129, 130, 131, 132, 133, 134, 135, 136, 137,
  156, 157, 158, 159, 160, 161, 162, 163, 164, 165, 166, 167, 168, 169, 170, 171, 172, 173, 174, 175, 176, 195, 196,
  197, 198, 199, 200, 201, 202, 203, 204, 205, 206, 207, 208, 209, 210, 211, 212, 213, 214, 215, 234, 235, 236, 237,
  238, 239, 240, 241, 242, 243, 244, 245, 246, 247, 248, 249, 250, 251, 252, 253, 254, 0, 0, 0, 0, 0
};
[[kernel]] void custom_kernel_cj_stem_2fb01239fd88_float16_t_float16_t_float16_t_float16_t(
  const device float16_t* input [[buffer(0)]],
  const device float16_t* weight [[buffer(1)]],
  const device float16_t* extra0 [[buffer(2)]],
  device float16_t* output0 [[buffer(3)]],
  uint simdgroup_index_in_threadgroup [[simdgroup_index_in_threadgroup]],
  uint thread_index_in_simdgroup [[thread_index_in_simdgroup]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]],
  uint3 threadgroup_position_in_grid [[threadgroup_position_in_grid]]) {
  // Convolution 32x32x3 -> 16x16x32, k 7x7, s 2, p 3.
  // A threadgroup computes 8x4 pixels by 32 channels with 2x2 simdgroups.
  threadgroup half tile[819];
  // Where a lane's two elements of an 8x8 matrix lie: neighbours in one row.
  const int lane = int(thread_index_in_simdgroup);
  const int fragment_row = (lane / 4 & 4) + lane / 2 % 4;
  const int fragment_column = (lane / 4 & 2) * 2 + lane % 2 * 2;
  const int simdgroup_m = int(simdgroup_index_in_threadgroup) / 2;
  const int simdgroup_n = int(simdgroup_index_in_threadgroup) % 2;
  const int box = int(threadgroup_position_in_grid.x);
  const int block = int(threadgroup_position_in_grid.y);
  const size_t image = size_t(threadgroup_position_in_grid.z);
  const int first_h = box / 4 * 8;
  const int from_h = first_h * 2 - 3;
  const int first_w = box % 4 * 4;
  const int from_w = first_w * 2 - 3;

  // The input of the box.
  for (int e = int(thread_index_in_threadgroup); e < 819; e += 128) {
    const int position = e / 3;
    const int in_h = from_h + position / 13;
    const int in_w = from_w + position % 13;
    const bool inside = in_h >= 0 && in_h < 32 && in_w >= 0 && in_w < 32;
    tile[e] = inside ? input[image * 3072u + size_t((in_h * 32 + in_w) * 3 + e % 3)] : half(0.0f);
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);

  // Where the first tap of the rows of this lane's matrices lies in the tile.
  int rows[2];
  #pragma clang loop unroll(full)
  for (int i = 0; i < 2; ++i) {
    const int m = (simdgroup_m * 2 + i) * 8 + fragment_row;
    rows[i] = (m / 4 * 2 * 13 + m % 4 * 2) * 3;
  }

  simdgroup_matrix<float, 8, 8> sums[2][2];
  #pragma clang loop unroll(full)
  for (int i = 0; i < 2; ++i) {
    #pragma clang loop unroll(full)
    for (int j = 0; j < 2; ++j) {
      sums[i][j] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
    }
  }
  const device half2* weights = (const device half2*)(weight + size_t(block) * 4864u + simdgroup_n * 128 + lane * 2);
  for (int k = fragment_column; k < 152; k += 8) {
    const int first_term = cj_terms[k];
    const int second_term = cj_terms[k + 1];
    simdgroup_matrix<float, 8, 8> b[2];
    #pragma clang loop unroll(full)
    for (int j = 0; j < 2; ++j) {
      const half2 pair = weights[j * 32];
      b[j].thread_elements()[0] = float(pair.x);
      b[j].thread_elements()[1] = float(pair.y);
    }
    weights += 128;
    #pragma clang loop unroll(full)
    for (int i = 0; i < 2; ++i) {
      simdgroup_matrix<float, 8, 8> a;
      a.thread_elements()[0] = k < 147 ? float(tile[rows[i] + first_term]) : 0.0f;
      a.thread_elements()[1] = k + 1 < 147 ? float(tile[rows[i] + second_term]) : 0.0f;
      #pragma clang loop unroll(full)
      for (int j = 0; j < 2; ++j) {
        simdgroup_multiply_accumulate(sums[i][j], a, b[j], sums[i][j]);
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
    const int m = (simdgroup_m * 2 + i) * 8 + fragment_row;
    const int out_h = first_h + m / 4;
    const int out_w = first_w + m % 4;
    const int pixel = (out_h * 16 + out_w);
    const size_t at = (image * 256u + size_t(pixel)) * 32u;
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
