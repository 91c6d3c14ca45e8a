// Rows of a softmax, a simdgroup each: the largest, the sum, the quotient.
// grid: 192 1 1
// threadgroup: 64 1 1
// input: x float32 6 40
// output: y float32 6 40
// expects: np.exp(x) / np.exp(x).sum(-1, keepdims=True)

[[kernel]] void custom_kernel_softmax(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 threadgroup_position_in_grid [[threadgroup_position_in_grid]],
  uint thread_index_in_simdgroup [[thread_index_in_simdgroup]],
  uint simdgroup_index_in_threadgroup [[simdgroup_index_in_threadgroup]]) {
  uint lane = thread_index_in_simdgroup;
  uint row = threadgroup_position_in_grid.x * 2u + simdgroup_index_in_threadgroup;
  const device float* in = x + row * 40u;
  float largest = -INFINITY;
  for (uint k = lane; k < 40u; k += 32u) largest = max(largest, in[k]);
  largest = simd_max(largest);
  float sum = 0.0f;
  for (uint k = lane; k < 40u; k += 32u) sum += metal::precise::exp(in[k] - largest);
  sum = simd_sum(sum);
  for (uint k = lane; k < 40u; k += 32u) y[row * 40u + k] = metal::precise::exp(in[k] - largest) / sum;
}
