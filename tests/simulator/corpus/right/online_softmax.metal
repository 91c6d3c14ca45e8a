// One pass: the running maximum and the sum that fits it, combined across lanes.
// grid: 96 1 1
// threadgroup: 32 1 1
// input: x float32 3 100
// output: y float32 3 100
// expects: np.exp(x-x.max(1,keepdims=True))/np.exp(x-x.max(1,keepdims=True)).sum(1,keepdims=True)

[[kernel]] void custom_kernel_online_softmax(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]],
  uint3 threadgroup_position_in_grid [[threadgroup_position_in_grid]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  float largest = -INFINITY;
  float sum = 0.0f;
  uint row = threadgroup_position_in_grid.x * 100u;
  for (uint i = l; i < 100u; i += 32u) {
    float v = x[row + i];
    float now = metal::max(largest, v);
    sum = sum * metal::exp(largest - now) + metal::exp(v - now);
    largest = now;
  }
  float all = simd_max(largest);
  sum = simd_sum(sum * metal::exp(largest - all));
  for (uint i = l; i < 100u; i += 32u) y[row + i] = metal::exp(x[row + i] - all) / sum;
}
