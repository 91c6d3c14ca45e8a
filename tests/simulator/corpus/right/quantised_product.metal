// A matrix-vector product on weights of four bits, a simdgroup a row.
// grid: 256 1 1
// threadgroup: 64 1 1
// input: x float32 64
// input: w uint8 8 32
// input: scale float32 8
// output: y float32 8
// expects: np.stack([w % 16 - 8, w // 16 - 8], -1).reshape(8, 64) @ x * scale

[[kernel]] void custom_kernel_quantised_product(
  const device float* x [[buffer(0)]],
  const device uint8_t* w [[buffer(1)]],
  const device float* scale [[buffer(2)]],
  device float* y [[buffer(3)]],
  uint3 threadgroup_position_in_grid [[threadgroup_position_in_grid]],
  uint thread_index_in_simdgroup [[thread_index_in_simdgroup]],
  uint simdgroup_index_in_threadgroup [[simdgroup_index_in_threadgroup]]) {
  uint lane = thread_index_in_simdgroup;
  uint row = threadgroup_position_in_grid.x * 2 + simdgroup_index_in_threadgroup;
  float sum = 0;
  for (uint k = lane; k < 32; k += 32) {
    uint8_t two = w[row * 32 + k];
    float2 v = float2(x[2 * k], x[2 * k + 1]);
    sum += dot(v, float2(two & 0xf, two >> 4) - 8);
  }
  sum = simd_sum(sum);
  if (lane == 0) y[row] = sum * scale[row];
}
