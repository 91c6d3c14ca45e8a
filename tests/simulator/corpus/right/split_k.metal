// The parts of a long sum come from several threadgroups and meet in atomic additions.
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 32
// input: w float32 32 64
// output: y float32 64
// init: 0
// expects: x @ w

[[kernel]] void custom_kernel_split_k(
  const device float* x [[buffer(0)]],
  const device float* w [[buffer(1)]],
  device atomic<float>* y [[buffer(2)]],
  uint3 threadgroup_position_in_grid [[threadgroup_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint l = thread_index_in_threadgroup;
  uint part = threadgroup_position_in_grid.x;
  float sum = 0.0f;
  for (uint k = part * 16u; k < part * 16u + 16u; ++k) sum = metal::fma(x[k], w[k * 64u + l], sum);
  atomic_fetch_add_explicit(&y[l], sum, memory_order_relaxed);
}
