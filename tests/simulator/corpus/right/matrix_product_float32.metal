// A matrix product on simdgroup matrices with bias and ReLU, written by the map of lanes.
// grid: 64 1 1
// threadgroup: 64 1 1
// input: x float32 16 32
// input: w float32 32 16
// input: bias float32 16
// output: y float32 16 16
// expects: np.maximum(x @ w + bias, 0)

[[kernel]] void custom_kernel_matrix_product_float32(
  const device float* x [[buffer(0)]],
  const device float* w [[buffer(1)]],
  const device float* bias [[buffer(2)]],
  device float* y [[buffer(3)]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]],
  uint thread_index_in_simdgroup [[thread_index_in_simdgroup]],
  uint simdgroup_index_in_threadgroup [[simdgroup_index_in_threadgroup]]) {
  uint l = thread_index_in_threadgroup;
  uint lane = thread_index_in_simdgroup;
  uint column = simdgroup_index_in_threadgroup * 8u;
  threadgroup float a[16 * 12];
  simdgroup_matrix<float, 8, 8> acc[2];
  for (int i = 0; i < 2; ++i) acc[i] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
  for (uint k = 0u; k < 32u; k += 8u) {
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (uint j = l; j < 128u; j += 64u) a[j / 8u * 12u + j % 8u] = x[j / 8u * 32u + k + j % 8u];
    threadgroup_barrier(mem_flags::mem_threadgroup);
    simdgroup_matrix<float, 8, 8> left, right;
    simdgroup_load(right, w + k * 16u + column, 16);
    for (int i = 0; i < 2; ++i) {
      simdgroup_load(left, a + i * 8 * 12, 12);
      simdgroup_multiply_accumulate(acc[i], left, right, acc[i]);
    }
  }
  uint quarter = lane / 4u;
  uint row = (quarter & 4u) + (lane / 2u) % 4u;
  column += (quarter & 2u) * 2u + (lane % 2u) * 2u;
  for (uint i = 0u; i < 2u; ++i) {
    float2 v = float2(acc[i].thread_elements()[0], acc[i].thread_elements()[1]);
    v = max(v + float2(bias[column], bias[column + 1u]), 0.0f);
    y[(i * 8u + row) * 16u + column] = float(v.x);
    y[(i * 8u + row) * 16u + column + 1u] = float(v.y);
  }
}
