// Each threadgroup adds its part of K to the result, one after the other only by luck.
// stage: check
// says: another threadgroup
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 32
// input: w float32 32 64
// output: y float32 64
// init: 0

[[kernel]] void custom_kernel_split_k_without_atomics(
  const device float* x [[buffer(0)]],
  const device float* w [[buffer(1)]],
  device float* y [[buffer(2)]],
  uint3 threadgroup_position_in_grid [[threadgroup_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint l = thread_index_in_threadgroup;
  uint part = threadgroup_position_in_grid.x;
  float sum = 0.0f;
  for (uint k = part * 16u; k < part * 16u + 16u; ++k) sum = metal::fma(x[k], w[k * 64u + l], sum);
  y[l] += sum;  // <-
}
