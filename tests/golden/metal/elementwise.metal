[[kernel]] void custom_kernel_cj_elementwise_5a045f5f0af8_float_float_float_floatc_int32_ts_float_float(
  const device float* x0 [[buffer(0)]],
  const device float* x1 [[buffer(1)]],
  const device float* x2 [[buffer(2)]],
  const constant float* x3 [[buffer(3)]],
  const constant int32_t& elements [[buffer(4)]],
  device float* y0 [[buffer(5)]],
  device float* y1 [[buffer(6)]],
  uint3 thread_position_in_threadgroup [[thread_position_in_threadgroup]],
  uint3 threadgroup_position_in_grid [[threadgroup_position_in_grid]]) {
  // Elementwise ops on n: reads n of f32, n of f32, n of f32, 1 of f32; gives all elements, all elements.
  // A thread does 4 neighbouring elements of one long row.
  const int block = int(threadgroup_position_in_grid.y);
  const float e3 = x3[0];
  const int end = metal::min((block + 1) * 512, int(elements));
  for (int at = block * 512 + int(thread_position_in_threadgroup.x) * 4; at < end; at += 512) {
    float e0[4];
    float e1[4];
    float e2[4];
    if (at + 4 <= elements) {
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
    } else {
      #pragma clang loop unroll(full)
      for (int j = 0; j < 4; ++j) {
        e0[j] = at + j < elements ? x0[at + j] : 0.0f;
      }
      #pragma clang loop unroll(full)
      for (int j = 0; j < 4; ++j) {
        e1[j] = at + j < elements ? x1[at + j] : 0.0f;
      }
      #pragma clang loop unroll(full)
      for (int j = 0; j < 4; ++j) {
        e2[j] = at + j < elements ? x2[at + j] : 0.0f;
      }
    }
    float r0[4];
    float r1[4];
    #pragma clang loop unroll(full)
    for (int j = 0; j < 4; ++j) {
      const float v1 = 0.8999999761581421f * e1[j];
      const float v2 = v1 + e2[j];
      const float v3 = e3 * v2;
      const float v4 = e0[j] - v3;
      r0[j] = v4;
      r1[j] = v2;
    }
    if (at + 4 <= elements) {
      #pragma clang loop unroll(full)
      for (int j = 0; j < 4; ++j) {
        y0[at + j] = r0[j];
      }
      #pragma clang loop unroll(full)
      for (int j = 0; j < 4; ++j) {
        y1[at + j] = r1[j];
      }
    } else {
      #pragma clang loop unroll(full)
      for (int j = 0; j < 4; ++j) {
        if (at + j < elements) {
          y0[at + j] = r0[j];
        }
      }
      #pragma clang loop unroll(full)
      for (int j = 0; j < 4; ++j) {
        if (at + j < elements) {
          y1[at + j] = r1[j];
        }
      }
    }
  }
}
