[[kernel]] void custom_kernel_cj_elementwise_2b5f04b35ae2_float_float_float_float_float_int32_ts_float_float(
  const device float* x0 [[buffer(0)]],
  const device float* x1 [[buffer(1)]],
  const device float* x2 [[buffer(2)]],
  const device float* x3 [[buffer(3)]],
  const device float* x4 [[buffer(4)]],
  const constant int32_t& rows [[buffer(5)]],
  device float* y0 [[buffer(6)]],
  device float* partial [[buffer(7)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint3 thread_position_in_threadgroup [[thread_position_in_threadgroup]],
  uint3 threadgroup_position_in_grid [[threadgroup_position_in_grid]]) {
  // Elementwise ops on nx16: reads nx16 of f32, nx16 of f32, nx16 of f32, 1x16 of f32, 1x16 of f32; gives all elements, sums over all rows, sums over all rows.
  // A thread does 4 columns of 2 rows; its neighbours, the next columns, then the next rows.
  threadgroup float shared[512];
  const int column = int(thread_position_in_grid.x) * 4;
  const int group = int(thread_position_in_threadgroup.y);
  const int block = int(threadgroup_position_in_grid.y);
  float sums[8] = {0.0f};
  float e3[4];
  #pragma clang loop unroll(full)
  for (int j = 0; j < 4; ++j) {
    e3[j] = x3[column + j];
  }
  float e4[4];
  #pragma clang loop unroll(full)
  for (int j = 0; j < 4; ++j) {
    e4[j] = x4[column + j];
  }
  const int end = metal::min((block + 1) * 64, int(rows));
  for (int row = block * 64 + group; row < end; row += 32) {
    const int at = row * 16 + column;
    float e0[4];
    float e1[4];
    float e2[4];
    #pragma clang loop unroll(full)
    for (int j = 0; j < 4; ++j) {
      e0[j] = x0[at + j];
    }
    #pragma clang loop unroll(full)
    for (int j = 0; j < 4; ++j) {
      e1[j] = x1[at + j];
    }
    #pragma clang loop unroll(full)
    for (int j = 0; j < 4; ++j) {
      e2[j] = x2[at + j];
    }
    float r0[4];
    #pragma clang loop unroll(full)
    for (int j = 0; j < 4; ++j) {
      const bool v1 = e1[j] > 0.0f;
      const float v2 = v1 ? e0[j] : 0.0f;
      const float v3 = e2[j] - e3[j];
      const float v4 = v3 * e4[j];
      const float v5 = v2 * v4;
      r0[j] = v2;
      sums[j] += v2;
      sums[4 + j] += v5;
    }
    #pragma clang loop unroll(full)
    for (int j = 0; j < 4; ++j) {
      y0[at + j] = r0[j];
    }
  }
  const int lane = int(thread_position_in_threadgroup.x) * 4;
  #pragma clang loop unroll(full)
  for (int n = 0; n < 2; ++n) {
    #pragma clang loop unroll(full)
    for (int j = 0; j < 4; ++j) {
      shared[group * 16 + lane + j] = sums[n * 4 + j];
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (int stride = 16; stride > 0; stride /= 2) {
      if (group < stride) {
        #pragma clang loop unroll(full)
        for (int j = 0; j < 4; ++j) {
          shared[group * 16 + lane + j] += shared[(group + stride) * 16 + lane + j];
        }
      }
      threadgroup_barrier(mem_flags::mem_threadgroup);
    }
    if (group == 0) {
      #pragma clang loop unroll(full)
      for (int j = 0; j < 4; ++j) {
        partial[(block * 2 + n) * 16 + column + j] = shared[lane + j];
      }
    }
  }
}

[[kernel]] void custom_kernel_cj_elementwise_sums_defe2e6ec55e_float_int32_ts_float_float(
  const device float* partial [[buffer(0)]],
  const constant int32_t& parts [[buffer(1)]],
  device float* y0 [[buffer(2)]],
  device float* y1 [[buffer(3)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint3 thread_position_in_threadgroup [[thread_position_in_threadgroup]]) {
  // 2 sums for each of 16 columns. Each of 32 threads adds up some of the parts, in order; then
  // pairs of threads, pairs of those, ...
  threadgroup float shared[256];
  const int column = int(thread_position_in_grid.x);
  const int group = int(thread_position_in_threadgroup.y);
  const int own = group * 8 + int(thread_position_in_threadgroup.x);
  float totals[2];
  #pragma clang loop unroll(full)
  for (int n = 0; n < 2; ++n) {
    float sum = 0.0f;
    for (int part = group; part < parts; part += 32) {
      sum += partial[(part * 2 + n) * 16 + column];
    }
    shared[own] = sum;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (int stride = 16; stride > 0; stride /= 2) {
      if (group < stride) {
        shared[own] += shared[own + stride * 8];
      }
      threadgroup_barrier(mem_flags::mem_threadgroup);
    }
    totals[n] = shared[own];
  }
  if (group == 0) {
    y0[column] = totals[0];
    y1[column] = totals[1];
  }
}
