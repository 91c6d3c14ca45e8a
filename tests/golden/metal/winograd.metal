[[kernel]] void custom_kernel_cj_winograd_input_787d09efe485_float_float(
  const device float* input [[buffer(0)]],
  const constant int* input_shape [[buffer(1)]],
  device float* transformed [[buffer(2)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  // Winograd F(2x2, 3x3), first kernel: transforms tiles of the input of 28x28x32 -> 28x28x32, k 3x3, p 1.
  // A thread transforms two neighbouring channels of a tile. The next kernel reads blocks of 40 tiles x 8 channels.
  const int k = int(thread_position_in_grid.x) * 2;
  const int row = int(thread_position_in_grid.y);
  const int tile = row % 196;
  const size_t image = size_t(row / 196);
  const int channel = k;
  const int first_h = tile / 14 * 2 - 1;
  const int first_w = tile % 14 * 2 - 1;
  const bool exists = row < input_shape[0] * 196;
  input += image * 25088u;
  transformed += size_t(row / 40) * 20480u + size_t(k / 8 * 320 + row % 40 * 8 + k % 8);

  float2 x[16];
  #pragma clang loop unroll(full)
  for (int i_h = 0; i_h < 4; ++i_h) {
    const int in_h = first_h + i_h;
    #pragma clang loop unroll(full)
    for (int i_w = 0; i_w < 4; ++i_w) {
      const int in_w = first_w + i_w;
      const bool inside = exists && in_h >= 0 && in_h < 28 && in_w >= 0 && in_w < 28;
      const int at = (in_h * 28 + in_w) * 32 + channel;
      x[(i_h * 4 + i_w)].x = inside ? float(input[at]) : 0.0f;
      x[(i_h * 4 + i_w)].y = inside ? float(input[at + 1]) : 0.0f;
    }
  }
  // Along the height.
  #pragma clang loop unroll(full)
  for (int i_w = 0; i_w < 4; ++i_w) {
    const float2 y1 = x[8 + i_w] + x[4 + i_w];
    const float2 y2 = x[8 + i_w] - x[4 + i_w];
    const float2 y0 = x[8 + i_w] - x[0 + i_w];
    const float2 y3 = x[12 + i_w] - x[4 + i_w];
    x[0 + i_w] = y0;
    x[4 + i_w] = y1;
    x[8 + i_w] = y2;
    x[12 + i_w] = y3;
  }
  // Along the width.
  #pragma clang loop unroll(full)
  for (int i_h = 0; i_h < 4; ++i_h) {
    const float2 y1 = x[2 + i_h * 4] + x[1 + i_h * 4];
    const float2 y2 = x[2 + i_h * 4] - x[1 + i_h * 4];
    const float2 y0 = x[2 + i_h * 4] - x[0 + i_h * 4];
    const float2 y3 = x[3 + i_h * 4] - x[1 + i_h * 4];
    x[0 + i_h * 4] = y0;
    x[1 + i_h * 4] = y1;
    x[2 + i_h * 4] = y2;
    x[3 + i_h * 4] = y3;
  }
  #pragma clang loop unroll(full)
  for (int i_h = 0; i_h < 4; ++i_h) {
    #pragma clang loop unroll(full)
    for (int i_w = 0; i_w < 4; ++i_w) {
      const int to = ((i_h * 4 + i_w)) * 1280;
      transformed[to] = float(x[(i_h * 4 + i_w)].x);
      transformed[to + 1] = float(x[(i_h * 4 + i_w)].y);
    }
  }
}

[[kernel]] void custom_kernel_cj_winograd_gemm_8424c37a6c31_float_float_float(
  const device float* transformed [[buffer(0)]],
  const device float* weight [[buffer(1)]],
  device float* products [[buffer(2)]],
  uint simdgroup_index_in_threadgroup [[simdgroup_index_in_threadgroup]],
  uint thread_index_in_simdgroup [[thread_index_in_simdgroup]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]],
  uint3 threadgroup_position_in_grid [[threadgroup_position_in_grid]]) {
  // Winograd F(2x2, 3x3), second kernel: 16 products of matrices, tiles x 32 by 32 x channels, of 28x28x32 -> 28x28x32, k 3x3, p 1.
  // A threadgroup computes 40 tiles by 32 channels of one product with 4 simdgroups.
  threadgroup float4 block[320];
  // Where a lane's two elements of an 8x8 matrix lie: neighbours in one row.
  const int lane = int(thread_index_in_simdgroup);
  const int fragment_row = (lane / 4 & 4) + lane / 2 % 4;
  const int fragment_column = (lane / 4 & 2) * 2 + lane % 2 * 2;
  const int simdgroup_n = int(simdgroup_index_in_threadgroup);
  const size_t position = size_t(threadgroup_position_in_grid.z);
  const size_t block_m = size_t(threadgroup_position_in_grid.y);
  const size_t block_n = size_t(threadgroup_position_in_grid.x);
  const device float4* from = (const device float4*)(transformed + (block_m * 16u + position) * 1280u);
  const device float2* weights = (const device float2*)(weight + (block_n * 16u + position) * 1024u + size_t(simdgroup_n * 64 + lane * 2));
  const threadgroup float* matrices = (const threadgroup float*)block + fragment_row * 8 + fragment_column;

  simdgroup_matrix<float, 8, 8> sums[5][1];
  #pragma clang loop unroll(full)
  for (int i = 0; i < 5; ++i) {
    #pragma clang loop unroll(full)
    for (int j = 0; j < 1; ++j) {
      sums[i][j] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
    }
  }
  for (int k = 0; k < 32; k += 32) {
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (int e = int(thread_index_in_threadgroup); e < 320; e += 128) {
      block[e] = from[e];
    }
    from += 320;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    #pragma clang loop unroll(full)
    for (int first_matrix = 0; first_matrix < 20; first_matrix += 5) {
      simdgroup_matrix<float, 8, 8> b[1];
      #pragma clang loop unroll(full)
      for (int j = 0; j < 1; ++j) {
        const float2 pair = weights[j * 32];
        b[j].thread_elements()[0] = float(pair.x);
        b[j].thread_elements()[1] = float(pair.y);
      }
      weights += 128;
      #pragma clang loop unroll(full)
      for (int i = 0; i < 5; ++i) {
        simdgroup_matrix<float, 8, 8> a;
        a.thread_elements()[0] = matrices[(first_matrix + i) * 64];
        a.thread_elements()[1] = matrices[(first_matrix + i) * 64 + 1];
        #pragma clang loop unroll(full)
        for (int j = 0; j < 1; ++j) {
          simdgroup_multiply_accumulate(sums[i][j], a, b[j], sums[i][j]);
        }
      }
    }
  }

  products += (block_m * 40u * 16u + position) * 32u;
  const int first_channel = int(block_n) * 32 + simdgroup_n * 8 + fragment_column;
  #pragma clang loop unroll(full)
  for (int i = 0; i < 5; ++i) {
    const int at = (i * 8 + fragment_row) * 512;
    #pragma clang loop unroll(full)
    for (int j = 0; j < 1; ++j) {
      const int channel = first_channel + j * 8;
      products[at + channel] = sums[i][j].thread_elements()[0];
      products[at + channel + 1] = sums[i][j].thread_elements()[1];
    }
  }
}

[[kernel]] void custom_kernel_cj_winograd_output_625db3d11679_float_float_float(
  const device float* products [[buffer(0)]],
  const device float* extra0 [[buffer(1)]],
  device float* output0 [[buffer(2)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  // Winograd F(2x2, 3x3), third kernel: transforms products to the outputs of 28x28x32 -> 28x28x32, k 3x3, p 1.
  // A thread computes two neighbouring channels of a tile.
  const int first_channel = int(thread_position_in_grid.x) * 2;
  const int tile = int(thread_position_in_grid.y);
  const size_t image = size_t(thread_position_in_grid.z);
  if (tile >= 196) {
    return;
  }
  const int first_h = tile / 14 * 2;
  const int first_w = tile % 14 * 2;
  products += (image * 196u + size_t(tile)) * 512u + size_t(first_channel);

  float e0_of[2];
  #pragma clang loop unroll(full)
  for (int e = 0; e < 2; ++e) {
    const int channel = first_channel + e;
    e0_of[e] = extra0[channel];
  }
  float2 x[16];
  #pragma clang loop unroll(full)
  for (int i_h = 0; i_h < 4; ++i_h) {
    #pragma clang loop unroll(full)
    for (int i_w = 0; i_w < 4; ++i_w) {
      const int at = ((i_h * 4 + i_w)) * 32;
      x[(i_h * 4 + i_w)] = float2(products[at], products[at + 1]);
    }
  }
  // Along the height.
  #pragma clang loop unroll(full)
  for (int i_w = 0; i_w < 4; ++i_w) {
    const float2 sum1 = x[4 + i_w] + x[8 + i_w];
    const float2 difference1 = x[4 + i_w] - x[8 + i_w];
    const float2 y0 = sum1 + x[0 + i_w];
    const float2 y1 = difference1 + x[12 + i_w];
    x[0 + i_w] = y0;
    x[4 + i_w] = y1;
  }
  // Along the width.
  #pragma clang loop unroll(full)
  for (int i_h = 0; i_h < 2; ++i_h) {
    const float2 sum1 = x[1 + i_h * 4] + x[2 + i_h * 4];
    const float2 difference1 = x[1 + i_h * 4] - x[2 + i_h * 4];
    const float2 y0 = sum1 + x[0 + i_h * 4];
    const float2 y1 = difference1 + x[3 + i_h * 4];
    x[0 + i_h * 4] = y0;
    x[1 + i_h * 4] = y1;
  }
  #pragma clang loop unroll(full)
  for (int i_h = 0; i_h < 2; ++i_h) {
    const int out_h = first_h + i_h;
    #pragma clang loop unroll(full)
    for (int i_w = 0; i_w < 2; ++i_w) {
      const int out_w = first_w + i_w;
      const int pixel = (out_h * 28 + out_w);
      const size_t at = (image * 784u + size_t(pixel)) * 32u;
      #pragma clang loop unroll(full)
      for (int e = 0; e < 2; ++e) {
        const int channel = first_channel + e;
        const float sum = x[(i_h * 4 + i_w)][e];
        const float e0 = e0_of[e];
        const float v0 = sum + e0;
        const float v2 = -v0;
        const float v3 = metal::precise::exp(v2);
        const float v4 = 1.0f + v3;
        const float v5 = v0 / v4;
        output0[at + size_t(channel)] = v5;
      }
    }
  }
}
