[[kernel]] void custom_kernel_cj_weight_gradient_89d7679f7338_float16_t_float16_t_float(
  const device float16_t* input [[buffer(0)]],
  const constant int* input_shape [[buffer(1)]],
  const device float16_t* output_gradient [[buffer(2)]],
  device float* output0 [[buffer(3)]],
  uint simdgroup_index_in_threadgroup [[simdgroup_index_in_threadgroup]],
  uint thread_index_in_simdgroup [[thread_index_in_simdgroup]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]],
  uint3 threadgroup_position_in_grid [[threadgroup_position_in_grid]]) {
  // Weight gradient, 28x28x32 -> 14x14x64, k 3x3, s 2, p 1.
  // A product of matrices: rows are output channels, columns the input channels of all taps; pixels are summed.
  // A threadgroup computes 64 rows by 16 columns with 4x1 simdgroups, the sums of one of 5 parts.
  threadgroup half gradient_tile[2304];
  threadgroup half input_tile[1280];
  // Where a lane's two elements of an 8x8 matrix lie: neighbours in one row.
  const int lane = int(thread_index_in_simdgroup);
  const int fragment_row = (lane / 4 & 4) + lane / 2 % 4;
  const int fragment_column = (lane / 4 & 2) * 2 + lane % 2 * 2;
  const int simdgroup_m = int(simdgroup_index_in_threadgroup);
  const int thread_number = int(thread_index_in_threadgroup);
  const int column_block = int(threadgroup_position_in_grid.x);
  // The pixels of all images, of which this part has a multiple of 32.
  const long all_pixels = long(input_shape[0]) * 196;
  const long part_number = long(threadgroup_position_in_grid.z);
  const long pixels_of_part = (all_pixels + 159) / 160 * 32;
  const long first_pixel = part_number * pixels_of_part;
  const int pixels = int(metal::min(pixels_of_part, all_pixels - first_pixel));

  // What this thread reads of the output's gradient: 4 channels of one pixel in 8.
  const int gradient_part = thread_number % 16 * 4;
  const int gradient_pixel = thread_number / 16;
  const int channel = gradient_part;
  output_gradient += size_t(first_pixel + gradient_pixel) * 64u + size_t(channel);

  // What it reads of the input: 4 columns, neighbouring channels of a tap, of one pixel in 32.
  const int input_part = thread_number % 4 * 4;
  const int input_pixel = thread_number / 4;
  const int column = column_block * 16 + input_part;
  const int input_channel = column % 32;
  const int reach_h = column / 96 - 1;
  const int reach_w = column / 32 % 3 - 1;
  int out_h = int((first_pixel + input_pixel) / 14 % 14);
  int out_w = int((first_pixel + input_pixel) % 14);
  input += size_t((first_pixel + input_pixel) / 196) * 25088u;

  // What it writes: pairs of columns from here on.
  output0 += size_t(part_number * 64) * 288u;
  const int first_channel = simdgroup_m * 16 + fragment_row;
  const int first_column = column_block * 16 + fragment_column;

  simdgroup_matrix<float, 8, 8> sums[2][2];
  #pragma clang loop unroll(full)
  for (int i = 0; i < 2; ++i) {
    #pragma clang loop unroll(full)
    for (int j = 0; j < 2; ++j) {
      sums[i][j] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
    }
  }
  for (int pixel = 0; pixel < pixels; pixel += 32) {
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (int p = gradient_pixel; p < 32; p += 8) {
      const bool inside = pixel + p < pixels;
      threadgroup half* to = gradient_tile + p * 72 + gradient_part;
      #pragma clang loop unroll(full)
      for (int i = 0; i < 4; ++i) {
        to[i] = inside ? output_gradient[i] : half(0.0f);
      }
      output_gradient += 512;
    }
    for (int p = input_pixel; p < 32; p += 32) {
      const int in_h = out_h * 2 + reach_h;
      const int in_w = out_w * 2 + reach_w;
      const bool inside = pixel + p < pixels && in_h >= 0 && in_w >= 0;
      const int from = (in_h * 28 + in_w) * 32 + input_channel;
      threadgroup half* to = input_tile + p * 40 + input_part;
      #pragma clang loop unroll(full)
      for (int i = 0; i < 4; ++i) {
        to[i] = inside ? input[from + i] : half(0.0f);
      }
      out_h += 2;
      out_w += 4;
      if (out_w >= 14) {
        out_w -= 14;
        ++out_h;
      }
      if (out_h >= 14) {
        out_h -= 14;
        input += 25088;
      }
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    #pragma clang loop unroll(full)
    for (int k = 0; k < 32; k += 8) {
      const threadgroup half* rows = gradient_tile + (k + fragment_column) * 72 + simdgroup_m * 16 + fragment_row;
      const threadgroup half* columns = input_tile + (k + fragment_row) * 40 + fragment_column;
      simdgroup_matrix<float, 8, 8> b[2];
      #pragma clang loop unroll(full)
      for (int j = 0; j < 2; ++j) {
        b[j].thread_elements()[0] = float(columns[j * 8]);
        b[j].thread_elements()[1] = float(columns[j * 8 + 1]);
      }
      #pragma clang loop unroll(full)
      for (int i = 0; i < 2; ++i) {
        simdgroup_matrix<float, 8, 8> a;
        a.thread_elements()[0] = float(rows[i * 8]);
        a.thread_elements()[1] = float(rows[i * 8 + 72]);
        #pragma clang loop unroll(full)
        for (int j = 0; j < 2; ++j) {
          simdgroup_multiply_accumulate(sums[i][j], a, b[j], sums[i][j]);
        }
      }
    }
  }
  #pragma clang loop unroll(full)
  for (int i = 0; i < 2; ++i) {
    #pragma clang loop unroll(full)
    for (int j = 0; j < 2; ++j) {
      #pragma clang loop unroll(full)
      for (int e = 0; e < 2; ++e) {
        const int at = (first_channel + i * 8) * 288 + first_column + j * 8 + e;
        output0[at] = sums[i][j].thread_elements()[e];
      }
    }
  }
}

[[kernel]] void custom_kernel_cj_sum_parts_31e69a1157a2_float_float16_t(
  const device float* partial [[buffer(0)]],
  device float16_t* output0 [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  // Weight gradient, 28x28x32 -> 14x14x64, k 3x3, s 2, p 1: 5 partial sums and the epilogue of one output a thread.
  const int channel = int(thread_position_in_grid.x);
  const int pixel = int(thread_position_in_grid.y);
  const size_t image = size_t(thread_position_in_grid.z);
  if (channel >= 288 || pixel >= 64) {
    return;
  }
  const size_t of_image = size_t(pixel) * 288u + size_t(channel);
  float sum = 0.0f;
  for (int part = 0; part < 5; ++part) {
    sum += partial[(image * 5u + size_t(part)) * 18432u + of_image];
  }
  const half v0 = half(sum);
  output0[image * 18432u + of_image] = v0;
}
